//! Pictures of what the panels show, drawn from Prometheus' own answers.
//!
//! In: a running Prometheus and a span of time. Out: SVG files, and the page that shows them.
//! Never: a figure that was not measured.

use super::{filled, queries};
use crate::harness::prometheus::{Prometheus, Series};
use plotters::prelude::*;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Panels worth a picture: dashboard, title.
const PANELS: &[(&str, &str)] = &[
    ("node.json", "Time left of the worst leases"),
    ("node.json", "Not healthy, by stage"),
    ("fleet.json", "Warnings, by cause"),
    ("node.json", "CPU: wait for a CPU"),
];
const SIZE: (u32, u32) = (900, 320);

/// Draws them all.
///
/// # Panics
/// If one cannot be drawn: then there is no picture of it to look at.
pub fn draw(folder: &Path, prometheus: &Prometheus, from: f64, to: f64) {
    fs::create_dir_all(folder).expect("a folder for pictures");
    let mut page = String::from(
        "# Pictures\n\nWhat the dashboards' panels showed while a ZooKeeper client was frozen until its \
         session expired: drawn from Prometheus' answers to the panels' own queries by `cargo xtask docs \
         --pictures`. Time runs in seconds.\n",
    );
    for (file, title) in PANELS {
        let place = format!("{file}: {title}: ");
        let mut series = Series::new();
        for query in queries::of_dashboards() {
            if query.place.starts_with(&place) {
                let answer = prometheus.ask_range(&filled(&query), from, to);
                series.extend(answer.expect("an answer"));
            }
        }
        assert!(!series.is_empty(), "{place}nothing to draw");
        let name = format!(
            "{}-{}.svg",
            file.trim_end_matches(".json"),
            title
                .to_lowercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        );
        picture(&folder.join(&name), title, &series, from, to)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        write!(page, "\n## {title}\n\n![{title}]({name})\n").expect("a string takes everything");
    }
    fs::write(folder.join("README.md"), page).expect("the page can be written");
}

fn picture(
    file: &Path,
    title: &str,
    series: &Series,
    from: f64,
    to: f64,
) -> Result<(), Box<dyn Error>> {
    let samples = || series.iter().flat_map(|(_, samples)| samples);
    let finite = || samples().map(|(_, value)| *value).filter(|v| v.is_finite());
    let low = finite().fold(0.0_f64, f64::min);
    let high = finite().fold(low + 1e-6, f64::max);
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..to - from, low..high * 1.05)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    for (at, (labels, samples)) in series.iter().enumerate() {
        let colour = Palette99::pick(at).to_rgba();
        let points = samples.iter().filter(|(_, value)| value.is_finite());
        let points = points.map(|(at, value)| (at - from, *value));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(legend(labels))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Labels but for the node's, which is this one's.
fn legend(labels: &serde_json::Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let words: Vec<&str> = labels
        .filter(|(name, _)| !["instance", "job", "__name__"].contains(&name.as_str()))
        .filter_map(|(_, value)| value.as_str())
        .collect();
    if words.is_empty() {
        "this node".to_owned()
    } else {
        words.join(" ")
    }
}

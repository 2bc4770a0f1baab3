//! Pictures of what the panels show, drawn from Prometheus' own answers.
//!
//! In: a running Prometheus and a span of time. Out: SVG files, and the page that shows them.
//! Never: a figure that was not measured.

use super::{filled, queries};
use crate::harness::prometheus::Prometheus;
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
        let lines = lines(file, title, prometheus, from, to);
        assert!(!lines.is_empty(), "{file}: {title}: nothing to draw");
        let name = format!(
            "{}-{}.svg",
            file.trim_end_matches(".json"),
            title
                .to_lowercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        );
        picture(&folder.join(&name), title, &lines, to - from)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        write!(page, "\n## {title}\n\n![{title}]({name})\n").expect("a string takes everything");
    }
    fs::write(folder.join("README.md"), page).expect("the page can be written");
}

/// A name for the legend, and points in seconds since the beginning.
type Line = (String, Vec<(f64, f64)>);

/// What a panel's queries say, named as the panel names it.
fn lines(file: &str, title: &str, prometheus: &Prometheus, from: f64, to: f64) -> Vec<Line> {
    let dashboards = queries::dashboards();
    let (_, dashboard) = dashboards
        .iter()
        .find(|(name, _)| name == file)
        .expect("a dashboard");
    let panel = queries::panels(dashboard)
        .find(|panel| panel["title"] == title)
        .expect("a panel");
    let mut lines = Vec::new();
    for target in panel["targets"].as_array().expect("targets") {
        let query = filled(target["expr"].as_str().expect("a query"));
        for (labels, samples) in prometheus.ask_range(&query, from, to).expect("an answer") {
            let finite = samples.into_iter().filter(|(_, value)| value.is_finite());
            let points: Vec<_> = finite.map(|(at, value)| (at - from, value)).collect();
            if !points.is_empty() {
                lines.push((named(&target["legendFormat"], &labels), points));
            }
        }
    }
    lines
}

fn picture(file: &Path, title: &str, lines: &[Line], span: f64) -> Result<(), Box<dyn Error>> {
    let values = lines.iter().flat_map(|(_, points)| points);
    let finite = || values.clone().map(|(_, value)| *value);
    let low = finite().fold(0.0_f64, f64::min);
    let high = finite().fold(low + 1e-6, f64::max);
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..span, low..high * 1.05)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = Palette99::pick(at).to_rgba();
        let points = points.iter().copied();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A legend with its labels filled in; the node is this one.
fn named(format: &serde_json::Value, labels: &serde_json::Value) -> String {
    let mut name = format.as_str().unwrap_or_default().to_owned();
    for (label, value) in labels.as_object().into_iter().flatten() {
        let value = match label.as_str() {
            "instance" => "node",
            _ => value.as_str().unwrap_or_default(),
        };
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

//! Histograms that the kernel programs count.
//!
//! In: the programs' bins, copied by the tick: stores into atomics, no lock. Out: a histogram of
//! Prometheus' kind. The library's own histograms only take single observations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, proto};
use watchdog_common::layout::{BINS, Durations};

use super::{definition, opts};

/// Upper bounds, seconds: 2^n microseconds for every bin but the last, which is without.
pub const BOUNDS: &[f64] = &bounds();

const fn bounds() -> [f64; BINS - 1] {
    let mut bounds = [0.0; BINS - 1];
    let mut bin = 0;
    while bin < BINS - 1 {
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        {
            bounds[bin] = (1_u64 << bin) as f64 / 1e6;
        }
        bin += 1;
    }
    bounds
}

#[derive(Default)]
struct Shown {
    sum_ns: AtomicU64,
    bins: [AtomicU64; BINS],
}

/// A histogram of waits, set as a whole.
#[derive(Clone)]
pub struct WaitHistogram {
    desc: Desc,
    shown: Arc<Shown>,
}

impl WaitHistogram {
    /// Registers it under its line in the table.
    pub(super) fn register(registry: &Registry, name: &str) -> prometheus::Result<Self> {
        use prometheus::core::Describer as _;
        let made = Self {
            desc: opts(definition(name)).describe()?,
            shown: Arc::default(),
        };
        registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Shows these.
    pub fn show(&self, durations: &Durations) {
        self.shown.sum_ns.store(durations.sum_ns, Ordering::Relaxed);
        for (shown, bin) in self.shown.bins.iter().zip(durations.bins) {
            shown.store(bin, Ordering::Relaxed);
        }
    }
}

impl Collector for WaitHistogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 ns of waiting are 104 days"
    )]
    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (bin, bound) in self.shown.bins.iter().zip(BOUNDS) {
            count += bin.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(*bound);
            buckets.push(bucket);
        }
        count += self.shown.bins[BINS - 1].load(Ordering::Relaxed);
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.shown.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

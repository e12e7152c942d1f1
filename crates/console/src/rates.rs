//! What was counted lately: rates of counters and quantiles of histograms, over all replicas, since the last look and over the last 10 s.
#![expect(clippy::float_arithmetic, reason = "measurements, and no money")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::exposition::Exposition;

const WINDOW: Duration = Duration::from_secs(10);

/// The metrics that are counted, and the label by which each is told apart, if any.
const COUNTED: [(&str, &str); 9] = [
    ("buy_orders_created_total", ""),
    ("buy_orders_replayed_total", ""),
    ("buy_orders_refused_total", "reason"),
    ("order_write_duration_seconds_bucket", "le"),
    ("projection_deliveries_total", "outcome"),
    ("projection_lag_seconds_bucket", "le"),
    ("buy_order_pages_served_total", ""),
    ("coinbase_requests_total", "outcome"),
    ("http_requests_total", "route"),
];

/// Counts by metric and value of the label.
type Counts = BTreeMap<(&'static str, String), f64>;

/// The counts of the last 10 s.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// What each replica said last.
    seen: BTreeMap<SocketAddr, (Instant, Counts)>,
    /// How much each count has grown, with the time of that look.
    grown: VecDeque<(Instant, Counts)>,
    /// A second's growth at the last look.
    per_s: Counts,
}

impl Rates {
    /// Adds what the replicas say now. One that is seen for the first time has counted since its start, which is no rate yet.
    pub(crate) fn observe<'r>(
        &mut self,
        now: Instant,
        replicas: impl IntoIterator<Item = (SocketAddr, &'r Exposition)>,
    ) {
        let mut grown = Counts::new();
        self.per_s.clear();
        let mut seen = BTreeMap::new();
        for (address, metrics) in replicas {
            let counts = counts(metrics);
            if let Some((at, before)) = self.seen.remove(&address) {
                let seconds = now.duration_since(at).as_secs_f64().max(0.001);
                for (key, count) in &counts {
                    // Below what it was: the process has begun anew, and so has its count.
                    let was = before.get(key).copied().filter(|was| was <= count);
                    let growth = count - was.unwrap_or_default();
                    *grown.entry(key.clone()).or_default() += growth;
                    *self.per_s.entry(key.clone()).or_default() += growth / seconds;
                }
            }
            seen.insert(address, (now, counts));
        }
        self.seen = seen;
        self.grown.push_back((now, grown));
        while self
            .grown
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.grown.pop_front();
        }
    }

    /// How much a metric grows in a second, by the last two looks. `None`: nobody has told of it twice.
    pub(crate) fn per_s(&self, metric: &str) -> Option<f64> {
        self.sum_per_s(metric, |_| true)
    }

    /// As [`Rates::per_s`], of the series with this value of the label.
    pub(crate) fn labelled_per_s(&self, metric: &str, label: &str) -> Option<f64> {
        self.sum_per_s(metric, |value| value == label)
    }

    fn sum_per_s(&self, metric: &str, is_wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let series = self.per_s.iter();
        let wanted = series.filter(|((name, label), _)| *name == metric && is_wanted(label));
        wanted
            .map(|(_, rate)| *rate)
            .reduce(|sum, rate| sum + rate)
            .map(rounded)
    }

    /// How much each series of a metric grew in a second of the last 10 s; those that did.
    pub(crate) fn recent(&self, metric: &str) -> BTreeMap<String, f64> {
        let grown = self.grown(metric).into_iter();
        grown
            .filter(|(_, growth)| *growth > 0.0)
            .map(|(label, growth)| (label, rounded(growth / WINDOW.as_secs_f64())))
            .collect()
    }

    /// How much each series of a metric grew in the last 10 s.
    fn grown(&self, metric: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for ((name, label), growth) in self.grown.iter().flat_map(|(_, grown)| grown) {
            if *name == metric {
                *sums.entry(label.clone()).or_default() += growth;
            }
        }
        sums
    }

    /// The quantile of a histogram (its `…_bucket`) over the last 10 s, as `histogram_quantile` of Prometheus has it; `None` if nothing was
    /// observed.
    pub(crate) fn quantile(&self, buckets: &str, quantile: f64) -> Option<f64> {
        let mut cumulative: Vec<(f64, f64)> = self
            .grown(buckets)
            .into_iter()
            .filter_map(|(bound, count)| Some((bound.parse().ok()?, count)))
            .collect();
        cumulative.sort_by(|one, other| one.0.total_cmp(&other.0));
        let total = cumulative.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = total * quantile;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in cumulative {
            if count >= rank {
                let within = if count > below {
                    (rank - below) / (count - below)
                } else {
                    1.0
                };
                let value = if bound.is_finite() {
                    lower + (bound - lower) * within
                } else {
                    lower
                };
                return Some(rounded(value));
            }
            (lower, below) = (bound, count);
        }
        None
    }
}

fn counts(metrics: &Exposition) -> Counts {
    let mut counts = Counts::new();
    for (name, label) in COUNTED {
        for sample in metrics.samples(name) {
            let value = sample.label(label).unwrap_or_default().to_owned();
            if let Some(count) = sample.number() {
                *counts.entry((name, value)).or_default() += count;
            }
        }
    }
    counts
}

/// To a millionth, so that the text of a number is short.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn created(count: u32) -> Exposition {
        Exposition::read(format!("buy_orders_created_total {count}\n").as_bytes())
    }

    #[test]
    fn a_rate_is_the_growth_of_all_replicas_since_the_last_look() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        rates.observe(start, [(address(1), &created(1000))]);
        assert_eq!(rates.per_s("buy_orders_created_total"), None);
        rates.observe(
            later(2000),
            [(address(1), &created(1010)), (address(2), &created(500))],
        );
        assert_eq!(rates.per_s("buy_orders_created_total"), Some(5.0));
        rates.observe(
            later(3000),
            [(address(1), &created(1010)), (address(2), &created(507))],
        );
        assert_eq!(rates.per_s("buy_orders_created_total"), Some(7.0));
        // The second one was restarted.
        rates.observe(
            later(4000),
            [(address(1), &created(1010)), (address(2), &created(3))],
        );
        assert_eq!(rates.per_s("buy_orders_created_total"), Some(3.0));
        rates.observe(later(5000), []);
        assert_eq!(rates.per_s("buy_orders_created_total"), None);
    }

    #[test]
    fn what_was_refused_in_the_last_ten_seconds_is_told_by_reason() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let refused = |busy: u64| {
            let text = format!(
                "buy_orders_refused_total{{reason=\"busy\"}} {busy}\nbuy_orders_refused_total{{reason=\"no_price\"}} 9\n"
            );
            Exposition::read(text.as_bytes())
        };
        for second in 0..15 {
            let now = start + Duration::from_secs(second);
            rates.observe(now, [(address(1), &refused(second.min(8)))]);
        }
        // Of the seconds from 5 to 14, those up to 8 refused something.
        let recent = rates.recent("buy_orders_refused_total");
        assert_eq!(recent, BTreeMap::from([("busy".to_owned(), 0.4)]));
        assert_eq!(rates.per_s("buy_orders_refused_total"), Some(0.0));
    }

    #[test]
    fn quantiles_lie_within_the_bucket_of_their_rank() {
        let mut rates = Rates::default();
        let histogram = |counts: [u32; 4]| {
            let bounds = ["0.01", "0.1", "1", "+Inf"];
            let lines = bounds
                .iter()
                .zip(counts)
                .map(|(bound, count)| format!("projection_lag_seconds_bucket{{le=\"{bound}\"}} {count}\n"));
            Exposition::read(lines.collect::<String>().as_bytes())
        };
        let quantile = |rates: &Rates, quantile| rates.quantile("projection_lag_seconds_bucket", quantile);
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        rates.observe(start, [(address(1), &histogram([100, 100, 100, 100]))]);
        assert_eq!(quantile(&rates, 0.5), None);
        rates.observe(later(1), [(address(1), &histogram([150, 198, 199, 200]))]);
        assert_eq!(quantile(&rates, 0.25), Some(0.005));
        assert_eq!(quantile(&rates, 0.5), Some(0.01));
        assert_eq!(quantile(&rates, 0.74), Some(0.055));
        // No bound is known above the last.
        assert_eq!(quantile(&rates, 1.0), Some(1.0));
        // All that was observed then is above the first bound, and so is every quantile.
        rates.observe(later(11), [(address(1), &histogram([150, 208, 209, 210]))]);
        assert_eq!(quantile(&rates, 0.5), Some(0.055));
        rates.observe(later(22), [(address(1), &histogram([150, 208, 209, 210]))]);
        assert_eq!(quantile(&rates, 0.5), None);
    }
}

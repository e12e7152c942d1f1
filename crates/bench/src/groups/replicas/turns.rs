//! Turns with different numbers of processes, and their figures.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::Service;

use crate::bench::Bench;

/// Forwards and then backwards, so that a trend of the machine favours none.
const TURNS: [usize; 6] = [1, 2, 4, 4, 2, 1];
const TURNS_QUICK: [usize; 2] = [1, 2];
pub(super) const TURN: Duration = Duration::from_secs(3);

pub(super) fn turns(bench: &Bench) -> &'static [usize] {
    if bench.quick { &TURNS_QUICK } else { &TURNS }
}

/// The numbers of replicas, ascending.
pub(super) fn counts(rates: &[(usize, f64)]) -> BTreeSet<usize> {
    rates.iter().map(|(of, _)| *of).collect()
}

/// The mean of the turns with this many replicas.
pub(super) fn mean(rates: &[(usize, f64)], replicas: usize) -> f64 {
    let rates = rates.iter().filter(|(of, _)| *of == replicas);
    let (sum, count) = rates.fold((0.0, 0.0), |(sum, count), (_, rate)| (sum + rate, count + 1.0));
    sum / count
}

/// Adds the mean for each number of replicas, compared with that of one.
pub(super) fn add_figures(bench: &mut Bench, service: Service, rates: &[(usize, f64)]) {
    let one = mean(rates, 1);
    for replicas in counts(rates) {
        let (name, rate) = (format!("{}, {replicas}", service.name()), mean(rates, replicas));
        match replicas {
            1 => bench.figures.add(name, rate, "/s"),
            _ => bench
                .figures
                .add_against(name, (rate, "/s"), ("1 replica, in turns", one)),
        }
    }
}

//! The test: a confidence sequence for the difference of two rates.
//!
//! Both arms are streams of events that are bad or good. A *confidence sequence* at level `1 -
//! alpha` is an interval after each event that contains the true difference *at all times together*
//! with probability `1 - alpha`. So it may be evaluated at any time and any number of times, and
//! used to stop (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform,
//! nonparametric, nonasymptotic confidence sequences").
//!
//! # Formulas
//!
//! One arm, `k` bad of `n`. With `M(k, n)` the probability of the data under a mixture of Beta
//! priors (the beta-binomial marginal without its binomial coefficient) and `L_p(k, n) = p^k
//! (1-p)^(n-k)`,
//!
//! ```text
//! E_p(k, n) = M(k, n) / L_p(k, n)
//! ```
//!
//! is, when `p` is the true rate, a nonnegative martingale that starts at 1. By Ville's inequality
//! it ever reaches `1/alpha` with probability at most `alpha`. A product of such processes of
//! independent arms and an average of processes with mean 1 have mean 1 again. So for every pair of
//! rates `p` (stable) and `p + d` (candidate)
//!
//! ```text
//! E(p, d) = 0.4 E_{p+d}(candidate) + 0.1 E_p(stable) + 0.5 E_{p+d}(candidate) E_p(stable)
//! ```
//!
//! is one as well. The product is the strong test if both arms have similar numbers of events. The
//! single terms are stronger if one arm has far more events, as is usual in a canary: there the
//! rate of stable is almost known, and the product would pay for estimating it. The confidence
//! sequence for the difference is `{d : min over p of ln E(p, d) < ln(1/alpha)}`.
//!
//! `ln E_p` is convex in `p`, and a log-sum-exp of convex functions is convex, so `ln E(p, d)` is
//! jointly convex, its minimum over `p` is convex in `d`, and the set is an interval around the
//! observed difference. Both minimum and ends are therefore found by plain search in one dimension.

/// Events of one arm: whole numbers, `bad <= all`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ArmEvents {
    pub(crate) bad: f64,
    pub(crate) all: f64,
}

impl ArmEvents {
    /// Share of bad events; 0 without events.
    pub(crate) fn rate(self) -> f64 {
        if self.all > 0.0 { self.bad / self.all } else { 0.0 }
    }
}

/// The mixture: weights and parameters of Beta priors. Jeffreys' prior is adequate at all rates;
/// the other two have their mass at the rates of healthy services, around 1/100 and 1/1000, where
/// most tests happen.
const PRIORS: [(f64, f64, f64); 3] = [(0.2, 0.5, 0.5), (0.4, 0.5, 10.0), (0.4, 0.5, 100.0)];

/// Weights of the terms of `E(p, d)`; they sum to 1. In a canary the candidate has the fewer
/// events, so its single term has more weight than stable's.
const CANDIDATE_ALONE: f64 = 0.4;
const STABLE_ALONE: f64 = 0.1;
const BOTH: f64 = 0.5;

/// The events of both arms so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArmComparison {
    candidate: ArmEvents,
    stable: ArmEvents,
    mixture_candidate: f64,
    mixture_stable: f64,
}

impl ArmComparison {
    pub(crate) fn new(candidate: ArmEvents, stable: ArmEvents) -> Self {
        Self {
            candidate,
            stable,
            mixture_candidate: ln_mixture(candidate),
            mixture_stable: ln_mixture(stable),
        }
    }

    /// The observed difference, candidate minus stable.
    pub(crate) fn difference(&self) -> f64 {
        self.candidate.rate() - self.stable.rate()
    }

    /// Evidence against a true difference of `d`: `min over p of ln E(p, d)`. A value of
    /// `ln(1/alpha)` or more excludes `d` at level `alpha`.
    pub(crate) fn evidence_against(&self, d: f64) -> f64 {
        find_minimum((-d).max(0.0), (1.0 - d).min(1.0), |p| self.ln_e(p, d))
    }

    /// The interval of differences that are not excluded at level `alpha`.
    pub(crate) fn interval(&self, alpha: f64) -> (f64, f64) {
        let bar = -alpha.ln();
        let middle = self.difference();
        let inside = |d: f64| self.evidence_against(d) < bar;
        (find_boundary(middle, -1.0, inside), find_boundary(middle, 1.0, inside))
    }

    fn ln_e(&self, p: f64, d: f64) -> f64 {
        let candidate = self.mixture_candidate - ln_likelihood(p + d, self.candidate);
        let stable = self.mixture_stable - ln_likelihood(p, self.stable);
        ln_sum_exp([
            CANDIDATE_ALONE.ln() + candidate,
            STABLE_ALONE.ln() + stable,
            BOTH.ln() + candidate + stable,
        ])
    }
}

/// The last point from `inside` towards `end` for which `holds` is true; `end` itself if it is true
/// there.
fn find_boundary(inside: f64, end: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(end) {
        return end;
    }
    let (mut yes, mut no) = (inside, end);
    for _ in 0..48 {
        let middle = 0.5 * (yes + no);
        if holds(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    yes
}

/// Minimum of a convex function on `[low, high]` by golden-section search. The function may be
/// infinite at the ends.
fn find_minimum(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let mut left = high - GOLDEN * (high - low);
    let mut right = low + GOLDEN * (high - low);
    let (mut at_left, mut at_right) = (f(left), f(right));
    for _ in 0..72 {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - GOLDEN * (high - low);
            at_left = f(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + GOLDEN * (high - low);
            at_right = f(right);
        }
    }
    at_left.min(at_right)
}

/// `ln M(k, n)`.
fn ln_mixture(events: ArmEvents) -> f64 {
    ln_sum_exp(PRIORS.map(|(weight, a, b)| {
        weight.ln() + ln_beta(a + events.bad, b + events.all - events.bad) - ln_beta(a, b)
    }))
}

/// `ln L_p(k, n)`, with 0 ln 0 = 0.
fn ln_likelihood(p: f64, events: ArmEvents) -> f64 {
    let term = |count: f64, ln: f64| if count > 0.0 { count * ln } else { 0.0 };
    let p = p.clamp(0.0, 1.0);
    term(events.bad, p.ln()) + term(events.all - events.bad, (-p).ln_1p())
}

fn ln_sum_exp<const N: usize>(terms: [f64; N]) -> f64 {
    let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most.is_infinite() {
        return most;
    }
    most + terms.iter().map(|t| (t - most).exp()).sum::<f64>().ln()
}

/// `ln B(a, b)` for positive arguments.
fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// `ln Gamma(x)` for `x > 0`: Stirling's series from 8 on, the recurrence below. Relative error
/// under 1e-13.
fn ln_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut x = x;
    while x < 8.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

//! A linear warm-up, then a decay: closed forms.

use super::anneal::half_cosine;
use super::rate::{At, Schedule};
use crate::hyper::OptionValue;

/// The factor of a warm-up of `warmup` steps, `None` behind it.
pub(super) fn warm(epoch: f64, warmup: u64, from_one: bool) -> Option<f64> {
    let first = f64::from(u8::from(from_one));
    (epoch < warmup as f64).then(|| (epoch + first) / warmup.max(1) as f64)
}

/// Shape of the decay of [`Wsd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Cooldown {
    /// `½(1 + cos πx)`.
    Cosine,
    /// `1 − √x`: falls fast, then slowly.
    #[default]
    OneMinusSqrt,
    /// `1 − x`.
    Linear,
    /// `1 − x²`: falls slowly, then fast.
    OneMinusSquare,
}

impl Cooldown {
    const NAMES: &'static [&'static str] = &["cosine", "1-sqrt", "linear", "1-square"];
    const ALL: [Self; 4] = [Self::Cosine, Self::OneMinusSqrt, Self::Linear, Self::OneMinusSquare];

    fn shape(self, x: f64) -> f64 {
        match self {
            Cooldown::Cosine => half_cosine(x),
            Cooldown::OneMinusSqrt => 1.0 - x.sqrt(),
            Cooldown::Linear => 1.0 - x,
            Cooldown::OneMinusSquare => 1.0 - x * x,
        }
    }
}

impl OptionValue for Cooldown {
    fn get(&self) -> f64 {
        Self::ALL.iter().position(|shape| shape == self).unwrap_or(0) as f64
    }
    fn set(&mut self, value: f64) {
        *self = Self::ALL.get(value as usize).copied().unwrap_or(*self);
    }
}

macro_rules! closed_factor {
    () => {
        fn next(&self, at: At) -> f64 {
            at.base_lr * self.factor(at.epoch)
        }
        fn closed_form(&self, at: At) -> Option<f64> {
            Some(self.next(at))
        }
    };
}
pub(super) use closed_factor;

/// Warm-up, a long constant stretch, a short decay ("warmup–stable–decay").
///
/// Use it when the length of the training is not known at its start: go on in the stable stretch as
/// long as you like, and decay from any checkpoint.
///
/// ```text
/// e < w:         b·e/w
/// e < w+s:       b
/// e < w+s+d:     b·(m + (1−m)·shape((e−w−s)/d))
/// then:          b·m
/// ```
/// | field | default | |
/// |---|---|---|
/// | `warmup` | 0 | w |
/// | `stable` | 900 | s |
/// | `decay` | 100 | d; the papers take 10–20 % of all steps |
/// | `min_ratio` | 0 | m, in [0, 1] |
/// | `cooldown` | `OneMinusSqrt` | shape of the decay |
/// | `warmup_from_one` | false | (e+1)/w instead of e/w: the first step is not lost |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let wsd = schedule::Wsd { warmup: 2, stable: 2, decay: 4, ..Default::default() };
/// let mut scheduler = LrScheduler::new(wsd, &mut opt)?;
/// assert_eq!(opt.lr(0), 0.0);
/// for expected in [0.5e-2, 1e-2, 1e-2, 1e-2, 0.5e-2] {
///     scheduler.step(&mut opt)?;
///     assert_eq!(opt.lr(0), expected);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: S. Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models", 2024;
/// A. Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
/// 2024 (the shape 1 − √x).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Wsd {
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps at the base rate.
    pub stable: u64,
    /// Steps of the decay.
    pub decay: u64,
    /// Last rate over base rate.
    pub min_ratio: f64,
    /// Shape of the decay.
    pub cooldown: Cooldown,
    /// Whether the warm-up starts at 1/`warmup` instead of 0.
    pub warmup_from_one: bool,
}
crate::config_file::named_fields!(Wsd);

impl Default for Wsd {
    fn default() -> Self {
        Self {
            warmup: 0,
            stable: 900,
            decay: 100,
            min_ratio: 0.0,
            cooldown: Cooldown::OneMinusSqrt,
            warmup_from_one: false,
        }
    }
}

crate::hyperparameters!(Wsd, "Wsd", {
    "warmup": CountFrom(0) = warmup;
    "stable": CountFrom(0) = stable;
    "decay": CountFrom(0) = decay;
    "min_ratio": Unit = min_ratio;
    "cooldown": Choice(Cooldown::NAMES) = cooldown;
    "warmup_from_one": Flag = warmup_from_one;
});

impl Wsd {
    fn factor(&self, epoch: f64) -> f64 {
        if let Some(factor) = warm(epoch, self.warmup, self.warmup_from_one) {
            return factor;
        }
        let cooling = epoch - self.warmup as f64 - self.stable as f64;
        if cooling < 0.0 {
            1.0
        } else if cooling < self.decay as f64 {
            let shape = self.cooldown.shape(cooling / self.decay as f64);
            self.min_ratio + (1.0 - self.min_ratio) * shape.max(0.0)
        } else {
            self.min_ratio
        }
    }
}

impl Schedule for Wsd {
    from_table!();
    closed_factor!();
}

macro_rules! warmup_decay {
    ($type:ident, $name:literal, $(#[$doc:meta])*, |$x:ident| $shape:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
        pub struct $type {
            /// Steps of the warm-up.
            pub warmup: u64,
            /// Steps until the rate is lowest, warm-up included.
            pub total: u64,
            /// Lowest rate over base rate.
            pub min_ratio: f64,
            /// Whether the warm-up starts at 1/`warmup` instead of 0.
            pub warmup_from_one: bool,
        }
        crate::config_file::named_fields!($type);

        impl Default for $type {
            fn default() -> Self {
                Self { warmup: 0, total: 1000, min_ratio: 0.0, warmup_from_one: false }
            }
        }

        crate::hyperparameters!($type, $name, {
            "warmup": CountFrom(0) = warmup;
            "total": CountFrom(1) = total;
            "min_ratio": Unit = min_ratio;
            "warmup_from_one": Flag = warmup_from_one;
        });

        impl $type {
            fn factor(&self, epoch: f64) -> f64 {
                if let Some(factor) = warm(epoch, self.warmup, self.warmup_from_one) {
                    return factor;
                }
                let (warmup, total) = (self.warmup as f64, self.total as f64);
                let $x = ((epoch - warmup) / (total - warmup).max(1.0)).min(1.0);
                self.min_ratio + (1.0 - self.min_ratio) * $shape
            }
        }

        impl Schedule for $type {
            from_table!();
            closed_factor!();
        }
    };
}

warmup_decay!(
    WarmupCosine,
    "WarmupCosine",
    /// Linear warm-up, then half a cosine wave down to `min_ratio`: the usual schedule of
    /// transformers.
    ///
    /// ```text
    /// e < w:  b·e/w
    /// else:   b·(m + (1−m)·½(1 + cos πx)),   x = min(1, (e−w)/(T−w))
    /// ```
    /// | field | default | |
    /// |---|---|---|
    /// | `warmup` | 0 | w |
    /// | `total` | 1000 | T ≥ 1, warm-up included |
    /// | `min_ratio` | 0 | m, in [0, 1] |
    /// | `warmup_from_one` | false | (e+1)/w instead of e/w: the first step is not lost |
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{prelude::*, schedule};
    ///
    /// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
    /// let cosine = schedule::WarmupCosine { warmup: 2, total: 4, ..Default::default() };
    /// let mut scheduler = LrScheduler::new(cosine, &mut opt)?;
    /// for expected in [0.5e-2, 1e-2, 0.5e-2, 0.0, 0.0] {
    ///     scheduler.step(&mut opt)?;
    ///     assert!((opt.lr(0) - expected).abs() < 1e-15);
    /// }
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    , |x| half_cosine(x)
);

warmup_decay!(
    WarmupLinear,
    "WarmupLinear",
    /// Linear warm-up, then a straight line down to `min_ratio`.
    ///
    /// ```text
    /// e < w:  b·e/w
    /// else:   b·(m + (1−m)·(1−x)),   x = min(1, (e−w)/(T−w))
    /// ```
    /// | field | default | |
    /// |---|---|---|
    /// | `warmup` | 0 | w |
    /// | `total` | 1000 | T ≥ 1, warm-up included |
    /// | `min_ratio` | 0 | m, in [0, 1] |
    /// | `warmup_from_one` | false | (e+1)/w instead of e/w: the first step is not lost |
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{prelude::*, schedule};
    ///
    /// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
    /// let line =
    ///     schedule::WarmupLinear { warmup: 2, total: 4, warmup_from_one: true, ..Default::default() };
    /// let mut scheduler = LrScheduler::new(line, &mut opt)?;
    /// assert_eq!(opt.lr(0), 0.5e-2);
    /// for expected in [1e-2, 1e-2, 0.5e-2, 0.0] {
    ///     scheduler.step(&mut opt)?;
    ///     assert_eq!(opt.lr(0), expected);
    /// }
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    , |x| 1.0 - x
);

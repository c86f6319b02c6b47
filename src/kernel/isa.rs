//! Which instruction set a loop is compiled for: the loop is written once, instantiated per set.
//!
//! A [`Kernel`] is a loop body in plain Rust. [`Isa::run`] compiles it inside a function with the
//! wider vector features switched on, where the compiler vectorises it. Rust never contracts
//! `a * b + c` on its own, so all instantiations give the same bits.

#![allow(unsafe_code)]

use std::sync::OnceLock;

/// A loop body that [`Isa::run`] instantiates for every instruction set.
pub trait Kernel {
    /// What the loop returns.
    type Output;
    /// The loop. Mark the implementation `#[inline(always)]`: only then is it compiled with the
    /// features of the function that it is inlined into.
    fn run(self) -> Self::Output;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// An instruction set that this processor has.
///
/// The level is private and every constructor asks the processor, so a value of this type is the
/// proof that its instructions exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

impl Isa {
    /// The widest one of this processor.
    pub fn detect() -> Self {
        static WIDEST: OnceLock<Isa> = OnceLock::new();
        *WIDEST.get_or_init(|| Self::available().last().unwrap_or(Self::portable()))
    }

    /// What every processor of the target has (SSE2 on x86-64, NEON on 64-bit Arm).
    pub const fn portable() -> Self {
        Self(Level::Portable)
    }

    /// All that this processor has, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            Some(Level::Portable),
            #[cfg(target_arch = "x86_64")]
            has_avx2().then_some(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            (has_avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                // the compiler takes these for part of `avx512f`; a virtual machine may hide them
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c"))
            .then_some(Level::Avx512),
        ]
        .into_iter()
        .flatten()
        .map(Self)
    }

    /// Whether this is the widest set of x86-64.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_avx512(self) -> bool {
        self.0 == Level::Avx512
    }

    /// Whether this is AVX2, without what came after it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_avx2(self) -> bool {
        self.0 == Level::Avx2
    }

    /// The same with vectors of at most 256 bits.
    pub(crate) fn narrower(self) -> Self {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Self::available().find(|isa| isa.0 == Level::Avx2).unwrap_or(self),
            _ => self,
        }
    }

    /// `portable`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Runs `kernel` as compiled for this instruction set.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Portable => kernel.run(),
            // SAFETY: an `Isa` of this level exists only where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: an `Isa` of this level exists only where the processor has these sets.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { run_avx512(kernel) },
        }
    }
}

/// AVX2, and the bit instructions that came to all processors before it or with it.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("popcnt")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,popcnt")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,bmi1,popcnt")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sum<'a>(&'a [f32]);
    impl Kernel for Sum<'_> {
        type Output = f32;
        #[inline(always)]
        fn run(self) -> f32 {
            self.0.iter().fold(0.0, |sum, x| sum + x * x)
        }
    }

    #[test]
    fn every_level_runs_and_gives_the_same_bits() {
        let xs: Vec<f32> = (0..1001).map(|i| (i as f32).sin()).collect();
        let expected = Isa::portable().run(Sum(&xs));
        for isa in Isa::available() {
            assert_eq!(isa.run(Sum(&xs)).to_bits(), expected.to_bits(), "{}", isa.name());
        }
    }
}

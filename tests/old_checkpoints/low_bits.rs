//! State in fewer bits, and parameters in fewer bits.

use crate::fixture::{Match::Bits, cases};
use crate::run::{LARGE, SMALL, Training, single};
use eigenstep::prelude::*;
use eigenstep::quant::StatePolicy;
#[cfg(feature = "half")]
use {crate::run::training, eigenstep::numeric::bf16};

fn coded(precision: Precision) -> Training<f32> {
    let opt = AdamW { lr: 0.02, ..AdamW::default() }.build().unwrap();
    single(LARGE, opt.with_state_precision(precision).unwrap())
}

#[cfg(feature = "half")]
fn bf16_parameters(rounding: Rounding) -> Training<bf16> {
    let opt = AdamW { lr: 1e-3, ..AdamW::default() }.build().unwrap();
    training(SMALL, opt.with_rounding(rounding).unwrap())
}

cases! {
    adamw_int8, Bits => coded(Precision::INT8_LINEAR);
    adamw_int4, Bits => coded(Precision::INT4);
    adamw_int4_lpmm, Bits => coded(Precision::INT4_LPMM);
    adamw_bf16_state, Bits => {
        let opt = AdamW { lr: 0.02, ..AdamW::default() }.build().unwrap();
        let policy = StatePolicy { min_numel: 1, ..Precision::Bf16.into() };
        single(SMALL, opt.with_state_policy(policy).unwrap())
    };
    #[cfg(feature = "half")]
    adamw_bf16_master, Bits => bf16_parameters(Rounding::Master);
    #[cfg(feature = "half")]
    adamw_bf16_kahan, Bits => bf16_parameters(Rounding::Kahan);
    #[cfg(feature = "half")]
    adamw_bf16_stochastic, Bits => bf16_parameters(Rounding::Stochastic { seed: 3 });
}

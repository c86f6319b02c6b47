//! Rules of one element, in full precision.

use crate::fixture::{Match::Bits, cases};
use crate::run::{SMALL, single, training};
use eigenstep::constrained::Projected;
use eigenstep::prelude::*;

cases! {
    sgd, Bits => {
        let sgd = Sgd { lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 1e-2, ..Sgd::default() };
        single(SMALL, sgd.build().unwrap())
    };
    adam_f64, Bits => {
        let adam = Adam { lr: 0.02, weight_decay: 1e-2, ..Adam::default() };
        training::<f64>(SMALL, adam.build().unwrap())
    };
    adamw_groups, Bits => {
        let adamw = AdamW { lr: 0.02, weight_decay: 0.1, ..AdamW::default() };
        let opt = adamw.build().unwrap();
        single(SMALL, opt.with_group(Select::name("*.bias"), |group| group.weight_decay = 0.0).unwrap())
    };
    adamw_amsgrad, Bits => {
        let adamw = AdamW { lr: 0.02, amsgrad: true, ..AdamW::default() };
        single(SMALL, adamw.build().unwrap())
    };
    adagrad, Bits => single(SMALL, Adagrad { lr: 0.05, ..Adagrad::default() }.build().unwrap());
    rmsprop, Bits => {
        let rmsprop = RmsProp { lr: 0.01, centered: true, momentum: 0.9, ..RmsProp::default() };
        single(SMALL, rmsprop.build().unwrap())
    };
    lion, Bits => single(SMALL, Lion { lr: 0.01, weight_decay: 0.1, ..Lion::default() }.build().unwrap());
    sign_sgd, Bits => {
        let sign_sgd = SignSgd { lr: 0.01, momentum: 0.9, ..SignSgd::default() };
        single(SMALL, sign_sgd.build().unwrap())
    };
    lamb, Bits => single(SMALL, Lamb { lr: 0.01, weight_decay: 0.1, ..Lamb::default() }.build().unwrap());
    prodigy, Bits => single(SMALL, Prodigy { d0: 1e-3, ..Prodigy::default() }.build().unwrap());
    schedule_free, Bits => {
        let schedule_free = ScheduleFreeAdamW { lr: 0.02, warmup_steps: 3, ..ScheduleFreeAdamW::default() };
        single(SMALL, schedule_free.build().unwrap())
    };
    primal_averaging, Bits => {
        let averaging = PrimalAveraging { lr: 0.02, weight_decay: 0.1, ..PrimalAveraging::default() };
        single(SMALL, averaging.build().unwrap())
    };
    classp, Bits => single(SMALL, Classp { lr: 0.02, ..Classp::default() }.build().unwrap());
    projected, Bits => {
        let rule = AdamW { lr: 0.05, ..AdamW::default() };
        let projected = Projected { lower: -0.5, upper: 0.75, ..Projected::with_inner(rule) };
        single(SMALL, projected.build().unwrap())
    };
}

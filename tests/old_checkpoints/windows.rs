//! Windows of gradients, and error feedback.

use crate::fixture::{Match::Bits, Match::Close, cases};
use crate::run::{SMALL, single};
use eigenstep::error_feedback::{CompressorConfig, ErrorFeedback, Momentum, ResidualFormat};
use eigenstep::linalg::Damping;
use eigenstep::prelude::*;

cases! {
    mfac_dense, Close(1e-5) => {
        let base = Momentum { lr: 0.01, momentum: 0.9, ..Momentum::default() };
        let opt = MFac { base, window: 4, damping: 0.1, ..MFac::default() }.build().unwrap();
        single(SMALL, opt.with_group(Select::name("*.bias"), |group| group.base.lr = 0.02).unwrap())
    };
    mfac_sparse, Close(1e-5) => {
        single(SMALL, MFac { window: 4, damping: 0.1, ..MFac::sparse(0.1) }.build().unwrap())
    };
    ggt, Close(1e-5) => {
        single(SMALL, Ggt { window: 4, eps: 0.1, ..Ggt::default() }.build().unwrap())
    };
    mfac_low_rank, Close(1e-5) => {
        single(SMALL, MFac { window: 4, damping: 0.1, ..MFac::low_rank(2) }.build().unwrap())
    };
    micro_adam, Bits => {
        single(SMALL, MicroAdam { lr: 0.02, window: 4, ..MicroAdam::default() }.build().unwrap())
    };
    feedback_sgd, Bits => {
        let sgd = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() };
        single(SMALL, ErrorFeedback::sparse(sgd, 0.1).build().unwrap())
    };
    feedback_low_rank, Close(1e-5) => {
        let method = ErrorFeedback {
            compressor: CompressorConfig::LowRank { rank: 2, seed: 3 },
            residual: ResidualFormat::Nibble { block: 64 },
            ..ErrorFeedback::rule(Lion { lr: 0.01, ..Lion::default() })
        };
        single(SMALL, method.build().unwrap())
    };
    feedback_shampoo, Close(1e-5) => {
        let method = Shampoo {
            inner: Sgd { lr: 0.02, ..Sgd::default() },
            damping: Damping::relative(0.01),
            update_factors_every: 1,
            update_roots_every: 2,
            ..Shampoo::default()
        };
        single(SMALL, ErrorFeedback::matrix(method).build().unwrap())
    };
}

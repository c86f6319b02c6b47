//! Methods that see matrices.

use crate::fixture::{Match::Close, cases};
use crate::run::{LARGE, SMALL, single};
use eigenstep::linalg::Damping;
use eigenstep::prelude::*;
use eigenstep::second_order::soap::{BasisStorage, Sides};
use eigenstep::second_order::{Descent, Graft};

/// Roots within a few steps, and a ridge well above what `f32` rounds away.
fn shampoo<U>(inner: U) -> Shampoo<U>
where
    Shampoo<U>: Default,
{
    Shampoo {
        inner,
        damping: Damping::relative(0.01),
        update_factors_every: 1,
        update_roots_every: 2,
        ..Shampoo::default()
    }
}

fn sgd() -> Sgd {
    Sgd { lr: 0.02, ..Sgd::default() }
}

cases! {
    shampoo_dense, Close(1e-5) => {
        single(SMALL, shampoo(AdamW { lr: 0.02, ..AdamW::default() }).build().unwrap())
    };
    shampoo_eigen4, Close(1e-5) => {
        single(LARGE, Shampoo { storage: FactorStorage::EIGEN4, ..shampoo(sgd()) }.build().unwrap())
    };
    shampoo_cholesky4, Close(1e-5) => {
        single(LARGE, Shampoo { storage: FactorStorage::CHOLESKY4, ..shampoo(sgd()) }.build().unwrap())
    };
    shampoo_distributed, Close(1e-5) => {
        let method = Shampoo { damping: Damping::relative(0.01), ..Shampoo::distributed() };
        single(SMALL, method.build().unwrap())
    };
    shampoo_double, Close(1e-5) => {
        let storage = FactorStorage::Double;
        single(SMALL, Shampoo { storage, ..shampoo(sgd()) }.build().unwrap())
    };
    shampoo_naive4, Close(1e-5) => {
        let storage = FactorStorage::Naive(FactorStorage::EIGEN4.codec().unwrap());
        single(SMALL, Shampoo { storage, min_numel: 64, ..shampoo(sgd()) }.build().unwrap())
    };
    shampoo_grafted, Close(1e-5) => {
        let damping = Damping::relative(0.01);
        let method = Shampoo { damping, graft: Graft::ADAM, start: 3, ..Shampoo::distributed() };
        single(SMALL, method.build().unwrap())
    };
    soap, Close(1e-5) => {
        // bases that gradients determine
        let sides = Sides::Shorter;
        let inner = AdamW { lr: 0.02, ..AdamW::default() };
        single(SMALL, Soap { update_basis_every: 2, sides, ..Soap::with_inner(inner) }.build().unwrap())
    };
    soap_4bit, Close(1e-5) => {
        let inner = AdamW { lr: 0.02, ..AdamW::default() };
        let (storage, sides) = (BasisStorage::FOUR_BIT, Sides::Shorter);
        let soap = Soap { update_basis_every: 2, storage, sides, min_numel: 64, ..Soap::with_inner(inner) };
        single(SMALL, soap.build().unwrap())
    };
    muon, Close(1e-5) => {
        single(SMALL, Muon { lr: 0.02, ..Muon::default() }.build().unwrap())
    };
    steepest_descent, Close(1e-5) => {
        let inner = Descent { lr: 0.02, momentum: 0.5, ..Descent::default() };
        single(SMALL, SteepestDescent { inner, ..SteepestDescent::default() }.build().unwrap())
    };
    galore, Close(1e-5) => {
        let method = GaLore { rank: 3, update_proj_gap: 2, ..GaLore::default() };
        single(SMALL, method.build().unwrap())
    };
    ldadam, Close(1e-5) => {
        single(SMALL, LdAdam { rank: 3, ..LdAdam::default() }.build().unwrap())
    };
}

//! Factors that begin at any size.

use super::{CHOLESKY4_PLAIN, NAIVE4, eager};
use eigenstep::prelude::*;
use ndarray::Array2;

/// Whatever a factor begins with is refused, or gives a dict that can be loaded again.
fn begins<T: eigenstep::numeric::Element>(storage: FactorStorage, initial: f64) {
    use eigenstep::numeric::Real;
    let config = || Shampoo { initial, ..eager(storage) };
    let Ok(mut opt) = config().build::<T>() else { return };
    let number = |i: usize, j: usize| T::store(T::Compute::of((i as f64 - 1.5) * (j as f64 + 0.5)));
    let mut w = Array2::from_shape_fn((4, 6), |(i, j)| number(j, i));
    for _ in 0..3 {
        let grads = Array2::from_shape_fn((4, 6), |(i, j)| number(i, j));
        let _ = opt.step(&mut w, &grads);
        let dict = opt.state_dict();
        let outcome = config().build::<T>().unwrap().load_state_dict(&dict);
        assert!(outcome.is_ok(), "{storage:?}, {initial:e} in {}: {outcome:?}", T::NAME);
    }
    assert!(w.iter().all(|w| w.load().widen().is_finite()), "{storage:?}, {initial:e}");
}

#[test]
fn any_beginning_can_be_saved_and_loaded() {
    let storages = [
        FactorStorage::Dense,
        FactorStorage::Double,
        FactorStorage::EIGEN4,
        FactorStorage::EIGEN4_UNRECTIFIED,
        FactorStorage::CHOLESKY4,
        CHOLESKY4_PLAIN,
        NAIVE4,
    ];
    for storage in storages {
        for initial in [0.0, 1e-300, 1e-30, 1e18, 1e30, 1e38, 3.4e38, 1e77, 1e100, 1e300, 1.7e308] {
            begins::<f32>(storage, initial);
            begins::<f64>(storage, initial);
        }
    }
}

//! Every optimizer compiled once.
//!
//! Optimizers are generic, so each test program would compile every rule anew. Debug builds link
//! against instances of the crates below instead, if these have them; here they are. A test program
//! uses them by naming this crate: `use eigenstep_instances as _;`. Release builds share no instances,
//! so there this crate is empty.

#![cfg(debug_assertions)]

use eigenstep::gradient::total_norm;
use eigenstep::numeric::Element;
use eigenstep::optim::{Blocked, ClosureOptimizer, Elementwise, Optim, Optimizer, MethodFor, Vectored};
use eigenstep::prelude::*;

/// Mentions whatever the tests call.
fn instance<M: MethodFor<T>, T: Element>(method: M) -> Option<(Box<dyn Optimizer<T>>, usize)> {
    let opt = Optim::new(method).ok()?;
    let opt = opt.with_state_precision(Precision::Full).ok()?;
    let opt = opt.with_rounding(Rounding::Nearest).ok()?;
    let opt = opt.with_group(Select::all(), |_| {}).ok()?.with_non_finite(NonFinite::Error);
    let step_problem: fn(&mut Optim<M, T>, _) -> _ = ClosureOptimizer::step_problem;
    Some((Box::new(opt), step_problem as usize))
}

/// Instances of all methods.
pub fn instances() -> usize {
    let mut made = 0;
    macro_rules! each {
        ($as_method:ident, $config:ident) => {
            let config: $config = $config::default();
            made += usize::from(instance::<_, f32>($as_method(config.clone())).is_some());
            made += usize::from(instance::<_, f64>($as_method(config)).is_some());
        };
    }
    macro_rules! rule {
        ($rule:ident) => {
            each!(Elementwise, $rule);
        };
    }
    macro_rules! matrix_method {
        ($method:ident) => {
            each!(Blocked, $method);
        };
    }
    macro_rules! windowed {
        ($method:ident) => {
            let config: $method = $method::default();
            made += usize::from(instance::<_, f32>(Vectored::of(config.clone())).is_some());
            made += usize::from(instance::<_, f64>(Vectored::of(config)).is_some());
        };
    }
    // what several tests use beside the defaults
    let shampoo = || Shampoo { inner: Sgd::default(), ..Shampoo::default() };
    made += usize::from(instance::<_, f32>(Blocked(shampoo())).is_some());
    made += usize::from(instance::<_, f64>(Blocked(shampoo())).is_some());
    made += usize::from(total_norm::<f32, _>(&(), 2.0).is_ok());
    made += usize::from(total_norm::<f64, _>(&(), 2.0).is_ok());
    eigenstep::for_each_error_feedback!(windowed);
    eigenstep::for_each_windowed!(windowed);
    eigenstep::for_each_first_order!(rule);
    eigenstep::for_each_second_order!(matrix_method);
    eigenstep::for_each_low_rank!(matrix_method);
    made
}

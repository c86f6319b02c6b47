//! Mentions whatever the tests call, so that it is compiled here.

use crate::config::Subject;
use crate::subjects::named;
use eigenstep::gradient::total_norm;
use eigenstep::numeric::Element;
use eigenstep::optim::{
    Blocked, ClosureOptimizer, Elementwise, MethodFor, Optim, Optimizer, Vectored,
};
use eigenstep::prelude::*;

/// Every optimizer behind pointers.
pub fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    macro_rules! subject {
        ($name:ident) => {
            subjects.push(named::$name);
        };
    }
    eigenstep::for_each_first_order!(subject);
    crate::for_each_composition!(subject);
    eigenstep::for_each_second_order!(subject);
    eigenstep::for_each_low_rank!(subject);
    eigenstep::for_each_windowed!(subject);
    eigenstep::for_each_error_feedback!(subject);
    subjects
}

/// What tests call that name the type of an optimizer.
fn instance<M: MethodFor<T>, T: Element>(method: M) -> Option<(Box<dyn Optimizer<T>>, usize)> {
    let opt = Optim::new(method).ok()?;
    let opt = opt.with_state_precision(Precision::Full).ok()?;
    let opt = opt.with_rounding(Rounding::Nearest).ok()?;
    let opt = opt.with_group(Select::all(), |_| {}).ok()?.with_non_finite(NonFinite::Error);
    let step_problem: fn(&mut Optim<M, T>, _) -> _ = ClosureOptimizer::step_problem;
    Some((Box::new(opt), step_problem as usize))
}

/// Instances of all methods by their types.
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

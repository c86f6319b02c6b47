//! Every optimizer compiled once.
//!
//! Optimizers are generic, so each test program would compile every rule anew. Debug builds link
//! against instances of the crates below instead, if these have them; here they are. A test program
//! uses them by naming this crate: `use eigenstep_instances as _;`.

use eigenstep::numeric::Element;
use eigenstep::optim::{ClosureOptimizer, Elementwise, Optim, Optimizer, Rule};
use eigenstep::prelude::*;

/// Mentions whatever the tests call.
fn instance<U: Rule + Default, T: Element>() -> Option<(Box<dyn Optimizer<T>>, usize)> {
    let opt: Optim<Elementwise<U>, T> = U::default().build().ok()?;
    let opt = opt.with_state_precision(Precision::Full).ok()?;
    let opt = opt.with_rounding(Rounding::Nearest).ok()?;
    let opt = opt.with_group(Select::all(), |_| {}).ok()?.with_non_finite(NonFinite::Error);
    let step_problem: fn(&mut Optim<Elementwise<U>, T>, _) -> _ = ClosureOptimizer::step_problem;
    Some((Box::new(opt), step_problem as usize))
}

/// Instances of all rules.
pub fn instances() -> usize {
    let mut made = 0;
    macro_rules! each {
        ($rule:ident) => {
            made += usize::from(instance::<$rule, f32>().is_some());
            made += usize::from(instance::<$rule, f64>().is_some());
        };
    }
    eigenstep::for_each_first_order!(each);
    made
}

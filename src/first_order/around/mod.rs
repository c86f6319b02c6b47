//! Rules around rules: they change the gradient, the direction or the decay of any other rule.
//!
//! | method | changes | state |
//! |---|---|---|
//! | [`Cautious`] | leaves out the elements of a step that go against the gradient | the inner rule's |
//! | [`Grams`] | sizes from the inner rule, signs from the gradient | the inner rule's |
//! | [`GrokFast`] | amplifies what gradients have in common over many steps | 4 bytes per `f32` parameter more |
//! | [`WithDecay`] | the form of the weight decay | the inner rule's |
//!
//! They nest: `Cautious::with_inner(GrokFast::with_inner(AdamW::default()))`. A wrapper of your own
//! implements [`RuleAround`](crate::optim::RuleAround).
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![1.0f64, -2.0];
//! let mut opt = Cautious::with_inner(Lion { lr: 0.01, ..Lion::default() }).build()?;
//! for _ in 0..300 {
//!     let grad = w.clone(); // of ‖w‖²/2
//!     opt.step(&mut w, &grad)?;
//! }
//! assert!(w.iter().all(|w: &f64| w.abs() < 0.05));
//! # Ok::<(), eigenstep::Error>(())
//! ```

mod cautious;
mod checks;
mod grams;
mod grokfast;
mod with_decay;

pub use cautious::{Cautious, MaskScale};
pub use grams::Grams;
pub use grokfast::GrokFast;
pub use with_decay::{DecayForm, WithDecay};

/// Calls `$macro!(Type)` for every rule around a rule.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_rule_around {
    ($macro:ident) => {
        $macro!(Cautious);
        $macro!(Grams);
        $macro!(GrokFast);
        $macro!(WithDecay);
    };
}

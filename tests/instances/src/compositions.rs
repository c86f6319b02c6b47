//! Compositions that keep the common promises, too, under one name each.

pub use eigenstep::error_feedback::Momentum;
use eigenstep::prelude::*;
pub use eigenstep::second_order::Descent;

pub type CautiousAdamW = Cautious<AdamW>;
pub type GramsAdamW = Grams<AdamW>;
pub type GrokFastSgd = GrokFast<Sgd>;
pub type WithDecayLion = WithDecay<Lion>;
pub type ProjectedAdamW = Projected<AdamW>;
pub type NestedRules = WithDecay<Cautious<GrokFast<Adam>>>;

/// Calls `$macro!(Type)` for every composition of rules, and every rule that is part of other methods.
#[macro_export]
macro_rules! for_each_composition {
    ($macro:ident) => {
        $macro!(CautiousAdamW);
        $macro!(GramsAdamW);
        $macro!(GrokFastSgd);
        $macro!(WithDecayLion);
        $macro!(ProjectedAdamW);
        $macro!(NestedRules);
        $macro!(Momentum);
        $macro!(Descent);
    };
}

//! Promises that every optimizer keeps, whoever wrote it; run for all of
//! `for_each_first_order!`, `for_each_second_order!` and the like.
//!
//! A new optimizer is tested here before its author has written a test of its own.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "common/edges.rs"]
mod edges;
#[path = "common/errors.rs"]
mod errors;
#[path = "common/groups.rs"]
mod groups;
#[path = "common/layouts.rs"]
mod layouts;
#[path = "common/model.rs"]
mod model;
#[path = "common/numbers.rs"]
mod numbers;
#[path = "support/threads.rs"]
mod threads;
#[path = "common/views.rs"]
mod views;

/// One module per optimizer, one test per promise.
macro_rules! promises {
    ($rule:ident) => {
        promises!(@tests $rule:
            numbers::decreases_a_quadratic,
            numbers::single_and_double_precision_agree,
            numbers::threads_do_not_change_bits,
            numbers::instruction_sets_do_not_change_bits,
            numbers::reload_continues_bit_for_bit,
            numbers::low_bits_stay_near_full_precision,
            numbers::maximize_is_minimize_of_the_opposite,
            groups::added_groups_change_nothing,
            groups::added_options_are_obeyed_or_refused,
            groups::names_are_those_of_the_saved_state,
            groups::frozen_parameters_are_left_out,
            groups::points_are_kept_for_each_parameter,
            groups::steps_are_reported,
            layouts::memory_order_does_not_change_bits,
            layouts::scalars_and_vectors,
            layouts::empty_arrays,
            layouts::low_bits_of_any_shape,
            views::absent_gradients_change_nothing,
            views::zero_gradients_are_steps,
            views::generated_is_dense,
            views::what_is_not_generated_is_zero,
            views::rows_are_dense,
            views::scaled_and_clamped_are_explicit,
            views::a_boxed_optimizer_is_the_optimizer,
            views::groups_are_optimizers,
            views::evaluation_leaves_the_state_alone,
            views::options_change_from_the_next_step,
            edges::nothing_but_numbers_is_kept,
            edges::too_large_is_said,
            edges::gradients_of_one_direction_stay_numbers,
            edges::moments_decay_to_zero,
            edges::vanishing_gradients_and_rates_stay_numbers,
            edges::nothing_over_nothing_is_nothing,
            edges::repeated_failures_say_where,
            edges::options_are_numbers_of_the_arithmetic,
            errors::errors_change_nothing,
            errors::skipped_steps_change_nothing,
            errors::propagated_nan_stays_visible,
            errors::options_out_of_range_are_named,
            errors::storage_is_chosen_before_the_first_step,
        );
    };
    (@tests $rule:ident: $($file:ident::$promise:ident,)*) => {
        #[allow(non_snake_case)]
        mod $rule {
            $(#[test]
            fn $promise() {
                crate::$file::$promise(&crate::model::named::$rule);
            })*
        }
    };
}
eigenstep::for_each_first_order!(promises);
eigenstep_instances::for_each_composition!(promises);
eigenstep::for_each_second_order!(promises);
eigenstep::for_each_error_feedback!(promises);
eigenstep::for_each_windowed!(promises);
eigenstep::for_each_low_rank!(promises);

/// Options that no variant has, because they are no numbers: an average whose weights are remembered by group.
#[test]
fn weights_of_an_average_follow_its_parameters() {
    use eigenstep::first_order::Averaging;
    use eigenstep::prelude::{Precision, PrimalAveraging};
    let averaging = Averaging::ScheduleFree { lr_power: 2.0 };
    let config = PrimalAveraging { averaging, ..PrimalAveraging::default() };
    groups::added_groups_of(&config.into(), Precision::Full);
}

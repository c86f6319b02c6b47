//! The one error type of the crate: what was wrong, where, what was expected and what was found.

use super::texts::{hint, listed, meant};

/// A failure that a closure of the user reported.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong.
///
/// A call that returns an error has changed nothing: parameters, optimizer state and step counts
/// are as they were before it. What is only shown, such as the gradient of the last step of
/// [`Ignite`](crate::wrappers::Ignite), may have changed. Calls are counted one by one: if
/// [`precondition`](crate::curvature::NetworkPreconditioner::precondition) succeeds and the `step` after it fails,
/// the former has happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option lies outside its range, or contradicts another one.
    #[error("{optimizer}: `{field}` must be {expected}, got {found}")]
    InvalidHyperparameter {
        /// Name of the optimizer, schedule or utility.
        optimizer: &'static str,
        /// Name of the option, as in `set_option`.
        field: &'static str,
        /// The admissible values in words.
        expected: String,
        /// The value given.
        found: String,
    },
    /// The optimizer has no option of this name.
    #[error("{optimizer} has no option `{name}`{}; it has {known}", meant(name, known))]
    UnknownOption {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// The name asked for.
        name: String,
        /// The names that exist, comma-separated.
        known: String,
    },
    /// A list with one value per parameter group has the wrong length.
    #[error(
        "{schedule}: `{field}` has {found} values, the optimizer has {groups} parameter groups"
    )]
    GroupValues {
        /// Name of the schedule.
        schedule: &'static str,
        /// Name of the list.
        field: &'static str,
        /// Number of parameter groups.
        groups: usize,
        /// Length of the list.
        found: usize,
    },
    /// A rate of the optimizer is not the one that a scheduler's loaded state belongs to.
    #[error(
        "{schedule}: group {group} of the optimizer has the learning rate {found}, the scheduler's state was saved at {saved}; load the optimizer's state of the same moment, or go on from the rates there with `LrScheduler::resume`"
    )]
    OtherRate {
        /// Name of the schedule.
        schedule: &'static str,
        /// Number of the parameter group.
        group: usize,
        /// The rate that the scheduler wrote last.
        saved: f64,
        /// The rate of the optimizer.
        found: f64,
    },
    /// A schedule of fixed length was stepped past its end.
    #[error("{schedule}: step {epoch} lies past `total_steps` = {total_steps}")]
    ScheduleEnded {
        /// Name of the schedule.
        schedule: &'static str,
        /// Its length.
        total_steps: u64,
        /// The step asked for.
        epoch: f64,
    },
    /// A curvature has no gradient of the same name in this step.
    #[error(
        "the curvature of `{name}` came without a gradient of that name; leave it out, or bring the gradient"
    )]
    CurvatureWithoutGradient {
        /// Path of the leaf.
        name: String,
    },
    /// A step lacks an input that the method needs.
    #[error("{optimizer} needs {input} in this step{of}; see `{help}`")]
    MissingInput {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// What is missing.
        input: &'static str,
        /// The parameter that it is needed for, in words; empty for the whole step.
        of: String,
        /// What brings it.
        help: &'static str,
    },
    /// A step brings an input that the method does not read.
    #[error("{optimizer} does not read a curvature, but one came with the gradients")]
    UnusedCurvature {
        /// Name of the optimizer.
        optimizer: &'static str,
    },
    /// There is no parameter group of this number.
    #[error("parameter group {group} does not exist; there are {groups}")]
    UnknownGroup {
        /// The number asked for.
        group: usize,
        /// How many groups there are.
        groups: usize,
    },
    /// A parameter group has never selected any parameter: nearly always a typing error.
    #[error(
        "parameter group {group} (`{select}`) matches no parameter{}; if all of its parameters are frozen and left out of the tree, mark the selector with `may_be_empty`",
        hint(select, parameters)
    )]
    EmptyGroup {
        /// Number of the group.
        group: usize,
        /// The selector's label.
        select: String,
        /// Paths of the parameters that there are.
        parameters: Vec<String>,
    },
    /// A part of a [`Partitioned`](crate::wrappers::Partitioned) is left with no parameter at all.
    #[error(
        "part {part} (`{select}`) of `Partitioned` is left with no parameter: none matches, or later parts take them all"
    )]
    EmptyPart {
        /// Number of the part; 0 holds what no other part selects.
        part: usize,
        /// The selector's label.
        select: String,
    },
    /// A gradient, or a saved state, does not have its parameter's shape.
    #[error("parameter `{name}`: expected shape {expected:?}, found {found:?}")]
    ShapeMismatch {
        /// Path of the parameter.
        name: String,
        /// The parameter's shape.
        expected: Vec<usize>,
        /// The shape met.
        found: Vec<usize>,
    },
    /// A parameter has more rows than at the last step, and nobody said so.
    #[error(
        "parameter `{name}`: its state has shape {expected:?}, the parameter {found:?}; if rows were added, call `grow_rows(\"{name}\", {})` before the step, which keeps the state of the old ones",
        found.first().copied().unwrap_or(0)
    )]
    AddedRows {
        /// Path of the parameter.
        name: String,
        /// The shape of the state.
        expected: Vec<usize>,
        /// The parameter's shape.
        found: Vec<usize>,
    },
    /// The method cannot go on with a parameter that has more rows.
    #[error("{optimizer} cannot go on with more rows of `{name}`: {problem}")]
    CannotGrow {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// Path of the parameter.
        name: String,
        /// Why not.
        problem: &'static str,
    },
    /// A flat buffer does not have the length its shape asks for.
    #[error("`{name}`: shape {shape:?} needs {expected} elements, the buffer has {found}")]
    LengthMismatch {
        /// Path of the leaf.
        name: String,
        /// The stated shape.
        shape: Vec<usize>,
        /// Number of elements of that shape.
        expected: usize,
        /// Number of elements given.
        found: usize,
    },
    /// A row index of a sparse gradient lies outside its parameter.
    #[error("gradient `{name}`: row {row} does not exist, the parameter has {rows} rows")]
    RowOutOfRange {
        /// Path of the gradient.
        name: String,
        /// The index given.
        row: usize,
        /// Number of rows of the parameter.
        rows: usize,
    },
    /// A gradient has no parameter of the same path.
    #[error("gradient `{name}` belongs to no parameter{}", hint(name, parameters))]
    UnknownGradient {
        /// Path of the gradient.
        name: String,
        /// Paths of the parameters that there are.
        parameters: Vec<String>,
    },
    /// One of two trees that must have the same leaves has a leaf that the other lacks.
    #[error("leaf `{name}` of one tree is not in the other")]
    UnknownLeaf {
        /// Path of the leaf.
        name: String,
    },
    /// A tree hands out other gradients than it did when a view of it was made.
    #[error(
        "`{name}`: the tree hands out other gradients than when its view was made; make the view again"
    )]
    ChangedTree {
        /// Path of the first gradient that the view does not know.
        name: String,
    },
    /// Statistics of a layer are due in this step, and were not observed.
    #[error(
        "layer `{layer}`: its statistics are due in this step and were not observed; when `needs_stats` is true, call `observe` before `precondition`"
    )]
    MissingLayerStats {
        /// Name of the layer's weight.
        layer: String,
    },
    /// A layer has statistics, or one of its gradients, but lacks another gradient.
    #[error(
        "layer `{layer}`: `{name}` has no gradient in this step, though {present}; bring all of them or none"
    )]
    MissingLayerGradient {
        /// Name of the layer's weight.
        layer: String,
        /// Path of the gradient that is missing.
        name: String,
        /// What is there, in words.
        present: &'static str,
    },
    /// Statistics are of a layer that is not registered.
    #[error(
        "no layer of this name is registered: `{name}`{}; registered are {known}",
        meant(name, known)
    )]
    UnknownLayer {
        /// The name given.
        name: String,
        /// The names that exist, comma-separated.
        known: String,
    },
    /// A parameter that the optimizer keeps state of is not in the tree.
    #[error("parameter `{name}` is missing from the tree")]
    MissingParameter {
        /// Path of the parameter.
        name: String,
    },
    /// A parameter was not there at the first step, whose parameters are kept.
    #[error(
        "{optimizer}: parameter `{name}` was not there at the first step, whose vector is kept"
    )]
    AddedParameter {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// Path of the parameter.
        name: String,
    },
    /// Workers could not agree on a gradient.
    #[error("exchange: {problem}")]
    Exchange {
        /// What is wrong.
        problem: String,
    },
    /// The tree of the first step after loading does not have the names of the loaded state.
    #[error(
        "{optimizer}: the tree does not fit the loaded state{}{}; correct the names with `rename` or `forget`, or accept the difference with `with_strict_names(false)`",
        listed("; no parameter has the state of", missing),
        listed("; there is no state of", new)
    )]
    UnmatchedState {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// Parameters that have state, and are not in the tree.
        missing: Vec<String>,
        /// Parameters that have a gradient, and were not known when the state was saved.
        new: Vec<String>,
    },
    /// Parameters lack a gradient, and all must have one.
    #[error("{}", listed("no gradient in this step for", names))]
    MissingGradients {
        /// Paths of the parameters, in the order of the tree.
        names: Vec<String>,
    },
    /// The optimizer keeps no state of a parameter of this name.
    #[error(
        "{optimizer} keeps no state of a parameter `{name}`{}{}",
        meant(name, &known.join(", ")),
        listed("; it keeps that of", known)
    )]
    UnknownParameter {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// Options of a group do not fit the state that a parameter already has.
    #[error(
        "{optimizer}: parameter `{name}` has state that the options of the new group would lay out in another way; keep those options, or add the group before the first step"
    )]
    StateLayout {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// Path of the parameter.
        name: String,
    },
    /// A parameter was left out of the tree when the others went back to the point of training.
    #[error(
        "{optimizer}: parameter `{name}` is still at the evaluation point, because it was not in the tree that `train` got; call `train` with it"
    )]
    LeftAtEvaluation {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// Path of the parameter.
        name: String,
    },
    /// A panic in code of the user has ended a step half way.
    #[error(
        "{optimizer}: a panic has ended a step half way; take parameters and state from a checkpoint (`load_state_dict`)"
    )]
    Interrupted {
        /// Name of the optimizer.
        optimizer: &'static str,
    },
    /// Two leaves of one tree have the same path.
    #[error("the name `{name}` is used twice")]
    DuplicateName {
        /// The path in question.
        name: String,
    },
    /// A gradient holds a NaN or an infinity, and the policy is to refuse it.
    #[error("gradient `{name}` is {value} at flat index {index}")]
    NonFiniteGradient {
        /// Path of the gradient.
        name: String,
        /// Row-major index of the first such element.
        index: usize,
        /// The value found, after scaling.
        value: f64,
    },
    /// A gradient is finite, but so large that the optimizer's arithmetic with it is not, and the policy is
    /// to refuse it.
    #[error(
        "gradient `{name}` is {value} at flat index {index}; above {limit} the arithmetic of {optimizer} overflows: clip it, or leave such steps out with `NonFinite::Skip`"
    )]
    GradientTooLarge {
        /// Name of the optimizer.
        optimizer: &'static str,
        /// Path of the gradient.
        name: String,
        /// Row-major index of the first such element.
        index: usize,
        /// The value found, after scaling.
        value: f64,
        /// The largest magnitude that the optimizer takes.
        limit: f64,
    },
    /// Gradients are not finite though the loss scale has become as small as it may.
    #[error(
        "GradScaler: gradients are not finite at scale {scale}, and {next} lies below `min_scale` = {min_scale}: the model or its data are at fault; `set_scale` goes on"
    )]
    LossScale {
        /// The current scale.
        scale: f64,
        /// What it would become.
        next: f64,
        /// The smallest admissible scale.
        min_scale: f64,
    },
    /// A norm or a scale that must be finite is not.
    #[error("{what} is not finite: {value}")]
    NonFinite {
        /// What was computed.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// More than the counters of random numbers can tell apart: numbers would repeat.
    #[error("at most {most} {what} have random numbers of their own")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The largest number of it.
        most: u64,
    },
    /// Parameters are stored in a type that the method cannot work on.
    #[error("{method}: parameters must be {expected}, they are {found}")]
    UnsupportedElement {
        /// Name of the method.
        method: &'static str,
        /// The types it takes.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// The losses of a recorded run cannot be replayed.
    #[error("loss log: {problem}")]
    LossLog {
        /// What is wrong.
        problem: String,
    },
    /// Losses told do not belong to the probes asked for.
    #[error("{method}: expected {expected} losses, one for every probe, got {found}")]
    LossCount {
        /// Name of the estimator.
        method: &'static str,
        /// Number of probes.
        expected: usize,
        /// Number of losses.
        found: usize,
    },
    /// The loss closure returned NaN or an infinity.
    #[error("the loss is not finite: {0}")]
    NonFiniteLoss(f64),
    /// The closure of the user failed.
    #[error("the closure failed: {0}")]
    Closure(#[source] BoxError),
    /// This can only be chosen before the first step.
    #[error("{what} can only be changed before the first step")]
    AlreadyStarted {
        /// What was to be changed.
        what: &'static str,
    },
    /// `step` was called while the parameters stand at the evaluation point.
    #[error("{optimizer}: the parameters are at the evaluation point; call `train` before `step`")]
    EvaluationMode {
        /// Name of the optimizer.
        optimizer: &'static str,
    },
    /// A saved state does not fit: the key says where, the problem says why.
    #[error("state dict: `{key}`: {problem}")]
    StateDict {
        /// The key in question, or the file.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A method was called out of order.
    #[error("{what}: {problem}")]
    OutOfOrder {
        /// The object and method.
        what: &'static str,
        /// What must happen first.
        problem: &'static str,
    },
    /// Bytes are no message of a compressor.
    #[error("not a message: {problem}")]
    Message {
        /// What is wrong with them.
        problem: String,
    },
    /// A matrix decomposition failed.
    #[error("{what} of a {rows} x {cols} matrix: {problem}")]
    Decomposition {
        /// The decomposition.
        what: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Why it failed.
        problem: &'static str,
    },
    /// A decomposition of one block has failed several times in a row; the last good root is in use.
    #[error("parameter `{name}`, block {block}: {failures} failures in a row, the last: {problem}")]
    RepeatedFailure {
        /// Path of the parameter.
        name: String,
        /// Number of the block, in row-major order.
        block: usize,
        /// How often in a row.
        failures: u64,
        /// Why it failed the last time.
        problem: &'static str,
    },
}

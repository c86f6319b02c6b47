//! What a step did.

/// What became of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// There was no step since the optimizer was made or loaded, or it does not tell.
    #[default]
    Unknown,
    /// Parameters were updated.
    Stepped,
    /// The step was left out ([`NonFinite::Skip`](super::NonFinite::Skip)); parameters and state are as before.
    Skipped {
        /// The error that the step would have been without the policy.
        reason: String,
    },
    /// No parameter had a gradient: nothing has changed, and no counter has moved.
    NoGradients,
}

/// What the last step did; [`Optimizer::last_step`](super::Optimizer::last_step) returns it.
///
/// # Examples
/// ```
/// use eigenstep::optim::StepOutcome;
/// use eigenstep::prelude::*;
/// use ndarray::{Array1, array};
///
/// let mut opt: Box<dyn Optimizer<f32>> = Box::new(AdamW::default().build()?);
/// let mut model = (array![1.0f32], array![1.0f32]);
/// opt.step(&mut model, &(array![1.0f32], None::<Array1<f32>>))?;
/// let report = opt.last_step();
/// assert_eq!((report.outcome, report.updated), (StepOutcome::Stepped, 1));
/// assert_eq!(report.without_gradient, ["1"]); // a layer that got no gradient is not passed over in silence
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// Whether it was taken.
    pub outcome: StepOutcome,
    /// Number of parameters that had a gradient, and so were updated.
    pub updated: usize,
    /// Parameters of the tree that had none, and so stayed as they were; in the order of the tree.
    pub without_gradient: Vec<String>,
    /// Groups that no parameter of the tree belongs to: their parameters are frozen, or later groups select the
    /// same ones.
    pub idle_groups: Vec<usize>,
    /// Norm of all gradients before clipping, if [`clip_grad_norm`](crate::gradient::clip_grad_norm) measured it.
    pub gradient_norm: Option<f64>,
}

impl StepReport {
    /// The report of several optimizers that stepped together; `group` is the number of the first group of `other`.
    pub(crate) fn join(&mut self, other: Self, group: usize) {
        if self.outcome == StepOutcome::Unknown || other.outcome == StepOutcome::Stepped {
            self.outcome = other.outcome;
        }
        self.updated += other.updated;
        self.without_gradient.extend(other.without_gradient);
        self.idle_groups.extend(other.idle_groups.into_iter().map(|idle| group + idle));
        self.gradient_norm = self.gradient_norm.or(other.gradient_norm);
    }
}

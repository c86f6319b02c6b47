//! Steps that change the active coordinates only.

use super::estimator::CoordinateEstimator;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Optimizer};
use crate::params::Parameters;
use crate::zeroth_order::estimator::{Estimator, ParamSnapshot, Report, ZerothOrder};

impl<T: Element, O: Optimizer<T>> ZerothOrder<T, CoordinateEstimator<T>, O> {
    /// One step that changes the active coordinates only. All others stay the same bit for bit, whatever
    /// the momentum and the weight decay of the optimizer are. It takes a copy of the parameters.
    ///
    /// # Errors
    /// As [`ZerothOrder::step`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{prelude::*, zeroth_order::{ActiveSet, Coordinate, ZerothOrder}};
    /// use ndarray::array;
    ///
    /// let optimizer = Sgd { lr: 0.1, weight_decay: 0.5, ..Sgd::default() }.build()?;
    /// let mut pair = ZerothOrder::new(Coordinate::default().build::<f64>()?, optimizer);
    /// pair.estimator.set_active(ActiveSet::Indices([("param".into(), vec![1])].into()))?;
    /// let mut w = array![1.0, 1.0];
    /// pair.step_frozen(&mut w, |w| w[0] + w[1])?;
    /// assert!(w[0] == 1.0 && w[1] < 0.9);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn step_frozen<M, V>(
        &mut self,
        model: &mut M,
        loss: impl FnMut(&mut M) -> V,
    ) -> Result<&Report>
    where
        M: Parameters<T>,
        V: IntoLoss,
    {
        let name = self.estimator.name();
        let mut snapshot = ParamSnapshot::<T>::new(name)?;
        snapshot.read(name, model, true)?;
        self.estimator.estimate(model, loss)?;
        self.apply(model)?;
        let mut moved = Vec::new();
        let active = self.estimator.active();
        snapshot.for_each(name, model, active, |_, x| moved.push(*x))?;
        snapshot.restore(name, model)?;
        snapshot.for_each(name, model, active, |number, x| {
            *x = moved.get(number).copied().unwrap_or(*x);
        })?;
        Ok(self.estimator.report())
    }
}

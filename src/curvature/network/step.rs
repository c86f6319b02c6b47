//! A step: what is observed, and what becomes of gradients.

use super::layer::{Layer, LayerLeaves};
use super::preconditioned::Preconditioned;
use super::preconditioner::NetworkPreconditioner;
use super::sums::LayerSums;
use crate::curvature::kronecker_inverse::KroneckerInverse;
use crate::curvature::layer_factors::LayerFactors;
use crate::curvature::layer_rows::for_each_chunk;
use crate::curvature::layer_spec::LayerSpec;
use crate::curvature::layer_stats::LayerStats;
use crate::error::{Error, Result, check_shape};
use crate::kernel::parallel;
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};
use crate::params::{GradBuffers, GradVisitor, Gradients, Manifest};
use ndarray::{Array2, ArrayRef2};
use num_traits::Float;

const NOT_FINITE: &str = "its statistics were not finite";

/// What is due for a layer in a step.
#[derive(Clone, Copy, Debug)]
struct Due {
    factors: bool,
    roots: bool,
    /// Whether statistics have to be observed.
    stats: bool,
}

/// Numbers of the leaves that are gradients of a layer.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    weight: Option<usize>,
    bias: Option<usize>,
}

/// A layer in a step.
struct Task<'t, 'g, T: Element> {
    layer: &'t mut Layer<T>,
    options: &'t LayerFactors,
    due: Due,
    leaves: Option<LayerLeaves<'t, 'g, T>>,
    gradient: Array2<T::Compute>,
    /// Whether the gradient is, and the statistics are.
    finite: bool,
    finite_stats: bool,
    /// The direction of weight and bias, and ⟨D, G⟩.
    direction: Option<(Vec<T>, Vec<T>)>,
    product: f64,
}

impl<T: Element> NetworkPreconditioner<T> {
    /// Whether the coming call of [`precondition`](Self::precondition) reads statistics of any layer. If
    /// not, inputs and output gradients need not be kept for this step.
    pub fn needs_stats(&self) -> bool {
        self.layers.iter().any(|layer| self.due(layer).stats)
    }

    /// The same for one layer; groups may have intervals of their own. False for a layer that is not
    /// registered.
    pub fn needs_stats_of(&self, layer: &str) -> bool {
        self.layer(layer).is_some_and(|layer| self.due(layer).stats)
    }

    fn due(&self, layer: &Layer<T>) -> Due {
        let options = self.groups.get(layer.group).map(|group| &group.options);
        let (factors, roots) =
            options.map_or((false, false), |options| options.due(self.steps + 1));
        Due { factors, roots, stats: factors || layer.state.needs_moments() }
    }

    /// Adds the inputs and output gradients of a layer in this step. Several calls for one layer are
    /// micro-batches, or uses of a layer that is used several times: all rows count alike.
    ///
    /// Where [`needs_stats_of`](Self::needs_stats_of) the layer is false, only shapes are looked at. A NaN
    /// is found by [`precondition`](Self::precondition).
    ///
    /// # Errors
    /// [`Error::UnknownLayer`]; [`Error::ShapeMismatch`] for shapes that are not those of the layer;
    /// [`Error::InvalidHyperparameter`] for a number of examples that does not divide that of rows, a loss
    /// scale of 0, an image smaller than the kernel, or a reduction that is not that of this step's earlier
    /// statistics. Nothing has changed then.
    pub fn observe(&mut self, stats: &LayerStats<'_, T>) -> Result<()> {
        let batch = stats.check(&self.known_layer(stats.layer())?.spec)?;
        if let Some(first) = self.reduction.filter(|first| *first != stats.reduction) {
            let expected = format!("{first:?}, as earlier in this step");
            let found = format!("{:?}", stats.reduction);
            return Err(Error::invalid("LayerStats", "reduction", expected, found));
        }
        let scales = self.options.scale.of(stats, &batch);
        let taken = self.with_sums(stats.layer(), |spec, sums| {
            for_each_chunk(spec, stats, &batch, scales, |rows| sums.add(rows))
        })?;
        if taken {
            self.reduction = Some(stats.reduction);
        }
        Ok(())
    }

    /// Adds second moments of a layer in place of rows: where several processes see samples and average
    /// moments, or the program has them anyway.
    ///
    /// `inputs`: XᵀX/samples, with the row and column of the bias. `output_gradients`: YᵀY/samples for the
    /// gradients Y of each sample's loss, whatever the options say of scales. Otherwise as
    /// [`observe`](Self::observe).
    ///
    /// # Errors
    /// [`Error::UnknownLayer`], [`Error::ShapeMismatch`]; [`Error::InvalidHyperparameter`] for no samples, or
    /// for a layer with [`KroneckerInverse::Ekfac`], which needs rows. Nothing has changed then.
    pub fn observe_moments(
        &mut self,
        layer: &str,
        inputs: &ArrayRef2<T::Compute>,
        output_gradients: &ArrayRef2<T::Compute>,
        samples: usize,
    ) -> Result<()> {
        let found = self.known_layer(layer)?;
        let (m, n) = found.spec.factor_orders();
        check_shape(&format!("{layer}, inputs"), &[n, n], inputs.shape())?;
        check_shape(&format!("{layer}, output gradients"), &[m, m], output_gradients.shape())?;
        if samples == 0 {
            return Err(Error::invalid("LayerStats", "samples", "at least 1", 0));
        }
        let inverse = self.groups.get(found.group).map(|group| group.options.inverse);
        if inverse == Some(KroneckerInverse::Ekfac) {
            let expected = "another than Ekfac, which needs rows, not moments";
            return Err(Error::invalid("LayerFactors", "inverse", expected, "Ekfac"));
        }
        self.with_sums(layer, |_, sums| sums.add_moments([output_gradients, inputs], samples))?;
        Ok(())
    }

    fn known_layer(&self, name: &str) -> Result<&Layer<T>> {
        self.layer(name).ok_or_else(|| {
            let known: Vec<&str> = self.layers.iter().map(|layer| layer.spec.weight()).collect();
            Error::UnknownLayer { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Adds to the sums of a layer, if its statistics are due; says whether they are.
    fn with_sums(
        &mut self,
        name: &str,
        add: impl FnOnce(&LayerSpec, &mut LayerSums<T::Compute>) -> Result<()>,
    ) -> Result<bool> {
        let due = self.due(self.known_layer(name)?);
        let place = self.places.get(name).map(|(index, _)| *index);
        let layer = place.and_then(|index| self.layers.get_mut(index)).filter(|_| due.stats);
        let Some(layer) = layer else { return Ok(false) };
        let Some(group) = self.groups.get(layer.group) else { return Ok(false) };
        let mut sums = match layer.sums.take() {
            Some(sums) => sums,
            None => LayerSums::new(&layer.spec, &group.options, due.factors, &layer.state)?,
        };
        // what can be wrong was looked for before
        let added = add(&layer.spec, &mut sums);
        layer.sums = Some(sums);
        added.map(|()| true)
    }

    /// Ends a step: takes statistics into factors and makes roots, as far as they are due, and returns the
    /// gradients with those of registered layers preconditioned.
    ///
    /// *Not finite.* If a gradient of a registered layer is NaN or infinite, the step does not count: its
    /// statistics are dropped, and all gradients pass as they are, so that the optimizer behind decides
    /// ([`NonFinite`](crate::optim::NonFinite), [`GradScaler`](crate::gradient::GradScaler)). If statistics
    /// alone are not finite, those of all layers are dropped, factors and roots stay as they were, and the
    /// layers in question count a failure. [`rejected_updates`](Self::rejected_updates) counts both. A
    /// direction that overflows is handed on, and the optimizer's check finds it.
    ///
    /// *Absent gradients.* A layer of which neither gradients nor statistics are there is left out of the
    /// step.
    ///
    /// # Errors
    /// [`Error::MissingLayerStats`] names a layer whose statistics are due and were not observed;
    /// [`Error::MissingLayerGradient`] one that lacks some of its gradients; [`Error::ShapeMismatch`],
    /// [`Error::DuplicateName`] and [`Error::LengthMismatch`] a gradient; [`Error::EmptyGroup`] a group
    /// without layers; [`Error::RepeatedFailure`] a layer that has failed more than `tolerated_failures`
    /// times since its last good refresh. Nothing has changed then, and the statistics observed so far are
    /// kept.
    pub fn precondition<'g, G: Gradients<T> + ?Sized>(
        &mut self,
        grads: &'g G,
    ) -> Result<Preconditioned<'g, T, G>> {
        let mut tree = GradVisitor::new(GradBuffers::default(), Manifest::default());
        tree.collect(grads)?;
        let directions = self.take_step(&tree)?;
        Ok(Preconditioned::new(grads, &tree.manifest, self.kl_scale, directions))
    }

    /// Drops the statistics of a step that will not be finished.
    pub fn discard_stats(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.sums = None);
        self.reduction = None;
    }

    /// Numbers of leaves and the directions in their place. Apart from
    /// [`precondition`](Self::precondition), so that it is compiled once and not for every tree.
    fn take_step(&mut self, tree: &GradVisitor<'_, T>) -> Result<Vec<(usize, Vec<T>)>> {
        let due: Vec<Due> = self.layers.iter().map(|layer| self.due(layer)).collect();
        let places = self.find(tree)?;
        self.check(&due, &places)?;
        // from here on nothing is an error
        let mut tasks = Vec::new();
        for ((layer, due), places) in self.layers.iter_mut().zip(&due).zip(&places) {
            let Some(group) = self.groups.get(layer.group) else { continue };
            let leaf = |place: Option<usize>| place.and_then(|place| tree.leaves.get(place));
            let leaves =
                leaf(places.weight).map(|weight| LayerLeaves { weight, bias: leaf(places.bias) });
            tasks.push(Task {
                layer,
                options: &group.options,
                due: *due,
                leaves,
                gradient: Array2::zeros((0, 0)),
                finite: true,
                finite_stats: true,
                direction: None,
                product: 0.0,
            });
        }
        let size = |task: &Task<'_, '_, T>| {
            let (m, n) = task.layer.spec.factor_orders();
            (m as f64, n as f64)
        };
        let elements = tasks.iter().map(&size).map(|(m, n)| m * m + n * n + m * n);
        let elements = elements.sum::<f64>() as usize;
        parallel::for_each(&mut tasks, elements, Task::read);
        let void = tasks.iter().any(|task| !task.finite);
        let observed = tasks.iter().any(|task| task.layer.sums.is_some());
        let rejected = observed && (void || tasks.iter().any(|task| !task.finite_stats));
        if !void {
            let cost = |task: &Task<'_, '_, T>| {
                let (m, n) = size(task);
                let roots = if task.due.roots { 10.0 * (m * m * m + n * n * n) } else { 0.0 };
                m * n * (m + n) + roots
            };
            let run = |task: &mut Task<'_, '_, T>| task.run(rejected);
            parallel::for_each_longest_first(&mut tasks, elements, cost, run);
        }
        let sum = tasks.iter().map(|task| task.product).sum();
        let mut directions = Vec::new();
        for (task, places) in tasks.iter_mut().zip(&places) {
            if let Some((weight, bias)) = task.direction.take() {
                directions.extend(places.weight.map(|leaf| (leaf, weight)));
                directions.extend(places.bias.map(|leaf| (leaf, bias)));
            }
        }
        self.kl_scale = if void { 1.0 } else { self.clip(sum) };
        self.rejected += u64::from(rejected);
        self.steps += u64::from(!void);
        self.discard_stats();
        Ok(directions)
    }

    /// ν for `Σ⟨D, G⟩`.
    fn clip(&self, sum: f64) -> f64 {
        let change = (sum * self.options.lr * self.options.lr).abs();
        match self.options.kl_clip {
            // not `min`, which would swallow a NaN
            Some(limit) if change > limit => (limit / change).sqrt(),
            Some(_) if change.is_nan() => f64::NAN,
            _ => 1.0,
        }
    }

    /// Where the gradients of every layer are in a tree.
    fn find(&self, tree: &GradVisitor<'_, T>) -> Result<Vec<Places>> {
        let mut places = vec![Places::default(); self.layers.len()];
        for leaf in 0..tree.leaves.len() {
            let (name, shape) = (tree.manifest.name(leaf), tree.manifest.shape(leaf));
            let Some(&(index, bias)) = self.places.get(name) else { continue };
            let found = places.get_mut(index).zip(self.layers.get(index));
            let Some((places, layer)) = found else { continue };
            let (place, expected) = match bias {
                true => (&mut places.bias, vec![layer.spec.outputs()]),
                false => (&mut places.weight, layer.spec.weight_shape()),
            };
            check_shape(name, &expected, shape)?;
            if place.replace(leaf).is_some() {
                return Err(Error::DuplicateName { name: name.to_owned() });
            }
        }
        Ok(places)
    }

    /// All that can be wrong with a step, but for shapes.
    fn check(&self, due: &[Due], places: &[Places]) -> Result<()> {
        for (index, group) in self.groups.iter().enumerate().skip(1) {
            let matches = |layer: &Layer<T>| {
                group.select.matches(layer.spec.weight(), &layer.spec.weight_shape())
            };
            if !group.select.is_optional() && !self.layers.iter().any(matches) {
                let names = self.layers.iter().map(|layer| layer.spec.weight());
                return Err(Error::empty_group(index, group.select.label(), names));
            }
        }
        for ((layer, due), places) in self.layers.iter().zip(due).zip(places) {
            let (spec, name) = (&layer.spec, layer.spec.weight());
            if let Some(group) = self.groups.get(layer.group) {
                layer.state.check_failures(name, &group.options)?;
            }
            let missing = |gradient: &str, present| {
                let (layer, name) = (name.to_owned(), gradient.to_owned());
                Err(Error::MissingLayerGradient { layer, name, present })
            };
            match (places.weight, places.bias, spec.bias()) {
                (None, None, _) if layer.sums.is_some() => {
                    return missing(name, "statistics of the layer were observed");
                }
                (None, Some(_), _) => return missing(name, "its bias has one"),
                (Some(_), None, Some(bias)) => return missing(bias, "its weight has one"),
                (Some(_), ..) if due.stats && layer.sums.is_none() => {
                    return Err(Error::MissingLayerStats { layer: name.to_owned() });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<T: Element> Task<'_, '_, T> {
    /// Copies the gradient, and looks what is finite.
    fn read(&mut self) {
        if let Some(leaves) = &self.leaves {
            self.gradient = self.layer.gradient(leaves);
            self.finite = self.gradient.iter().all(|x| x.is_finite());
        }
        self.finite_stats = self.layer.sums.iter().all(LayerSums::is_finite);
    }

    /// Takes statistics, makes roots, and the direction.
    fn run(&mut self, rejected: bool) {
        // without gradients there are no statistics either: the layer is left out
        if self.leaves.is_none() {
            return;
        }
        if !self.finite_stats {
            self.layer.state.fail(NOT_FINITE);
        } else if !rejected {
            let Self { layer, options, due, .. } = self;
            let taken = match layer.sums.take() {
                Some(sums) => sums.settle(&mut layer.state, options),
                None => Ok(()),
            };
            let mut refresh = || if due.roots { layer.state.refresh(options) } else { Ok(()) };
            let done = taken.and_then(|()| refresh());
            layer.state.note(done);
        }
        match self.layer.state.direction(&self.gradient, self.options) {
            Ok(direction) => {
                self.product = product(&direction, &self.gradient);
                self.direction = Some(self.layer.stored(&direction));
            }
            Err(error) => self.layer.state.note(Err(error)),
        }
    }
}

/// ⟨D, G⟩ in `f64`, in an order that the shape decides.
fn product<R: Real>(d: &Array2<R>, g: &Array2<R>) -> f64 {
    let (d, g) = (d.as_standard_layout(), g.as_standard_layout());
    let (d, g) = (d.as_slice().unwrap_or_default(), g.as_slice().unwrap_or_default());
    let mut sum = LaneSum::default();
    sum.extend_pairs(d, g, |d, g| d.widen() * g.widen());
    sum.total()
}

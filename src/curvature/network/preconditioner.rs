//! The factors of a network at work: its layers and groups.

use super::config::NetworkFactors;
use super::layer::Layer;
use crate::curvature::layer_factors::LayerFactors;
use crate::curvature::layer_spec::LayerSpec;
use crate::curvature::layer_stats::LossReduction;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::params::Select;
use crate::second_order::factor::Factor;
use crate::state::StateBytes;
use std::collections::BTreeMap;

/// The factors of the layers of a network, which precondition its gradients; [`NetworkFactors`] has the
/// equations and an example.
///
/// | before training | in every step | to continue later |
/// |---|---|---|
/// | [`with_layer`](Self::with_layer), [`with_group`](Self::with_group) | [`needs_stats`](Self::needs_stats), [`observe`](Self::observe), [`precondition`](Self::precondition) | [`state_dict`](Self::state_dict), [`load_state_dict`](Self::load_state_dict) |
///
/// Layers are independent of each other and work on all threads; numbers do not depend on how many there
/// are. A clone has factors of its own, and goes on with the same bits.
#[derive(Clone, Debug)]
pub struct NetworkPreconditioner<T: Element> {
    pub(super) options: NetworkFactors,
    pub(super) groups: Vec<Group>,
    pub(super) layers: Vec<Layer<T>>,
    /// Where the gradients of layers belong: number of the layer, and whether it is its bias.
    pub(super) places: BTreeMap<String, (usize, bool)>,
    pub(super) steps: u64,
    pub(super) rejected: u64,
    /// Reduction of the statistics of this step, if there are any.
    pub(super) reduction: Option<LossReduction>,
    pub(super) kl_scale: f64,
}

/// Some layers, and their options.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub select: Select,
    pub options: LayerFactors,
}

impl NetworkFactors {
    /// The factors of a network without layers yet.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range.
    pub fn build<T: Element>(self) -> Result<NetworkPreconditioner<T>> {
        self.validate()?;
        Ok(NetworkPreconditioner {
            groups: vec![Group { select: Select::all(), options: self.layer.clone() }],
            options: self,
            layers: Vec::new(),
            places: BTreeMap::new(),
            steps: 0,
            rejected: 0,
            reduction: None,
            kl_scale: 1.0,
        })
    }
}

impl<T: Element> NetworkPreconditioner<T> {
    /// Registers a layer. One that is registered while training begins with factors that have seen
    /// nothing.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] if another layer has one of its names; [`Error::InvalidHyperparameter`]
    /// names `shape` for more than 131,072 outputs or inputs. Then nothing has changed.
    pub fn with_layer(mut self, spec: LayerSpec) -> Result<Self> {
        self.add_layer(spec)?;
        Ok(self)
    }

    /// As [`with_layer`](Self::with_layer).
    ///
    /// # Errors
    /// As [`with_layer`](Self::with_layer).
    pub fn add_layer(&mut self, spec: LayerSpec) -> Result<()> {
        LayerFactors::check_orders(spec.factor_orders())?;
        let names: Vec<(String, bool)> = std::iter::once((spec.weight(), false))
            .chain(spec.bias().map(|bias| (bias, true)))
            .map(|(name, bias)| (name.to_owned(), bias))
            .collect();
        let twice = spec.bias() == Some(spec.weight());
        if let Some((name, _)) =
            names.iter().find(|(name, _)| twice || self.places.contains_key(name))
        {
            return Err(Error::DuplicateName { name: name.clone() });
        }
        let group = self.group_of(&spec);
        if let Some(options) = self.groups.get(group).map(|group| &group.options) {
            let layer = Layer::new(spec, group, options);
            let index = self.layers.len();
            self.places.extend(names.into_iter().map(|(name, bias)| (name, (index, bias))));
            self.layers.push(layer);
        }
        Ok(())
    }

    /// Adds a group: layers whose weight `select` matches get the options of all layers as `change` leaves
    /// them. Where several groups match, the last one counts.
    ///
    /// # Errors
    /// As [`add_group`](Self::add_group).
    pub fn with_group(
        mut self,
        select: Select,
        change: impl FnOnce(&mut LayerFactors),
    ) -> Result<Self> {
        self.add_group(select, change)?;
        Ok(self)
    }

    /// As [`with_group`](Self::with_group), also while training: layers that move to the new group keep
    /// their state.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range;
    /// [`Error::AlreadyStarted`] if options would change how factors are stored after the first step.
    /// Then there is no new group. A selector that matches no layer is an error of the next step.
    pub fn add_group(
        &mut self,
        select: Select,
        change: impl FnOnce(&mut LayerFactors),
    ) -> Result<()> {
        // group 0 always exists
        let Some(mut options) = self.config(0).cloned() else { return Ok(()) };
        change(&mut options);
        options.validate()?;
        let mut groups = self.groups.clone();
        groups.push(Group { select, options });
        self.regroup(groups)
    }

    /// Number of groups; group 0 holds the options of all layers that no other group selects.
    pub fn num_groups(&self) -> usize {
        self.groups.len()
    }

    /// The options of a group.
    pub fn config(&self, group: usize) -> Option<&LayerFactors> {
        self.groups.get(group).map(|group| &group.options)
    }

    /// Value of an option of a group; `None` if there is no such group or option.
    pub fn option(&self, group: usize, name: &str) -> Option<f64> {
        self.config(group)?.option(name)
    }

    /// Changes an option of a group, from the next step on.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`], [`Error::UnknownOption`], [`Error::InvalidHyperparameter`];
    /// [`Error::AlreadyStarted`] if it would change how factors are stored after the first step.
    pub fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        let mut groups = self.groups.clone();
        let count = groups.len();
        let found = groups.get_mut(group).ok_or(Error::UnknownGroup { group, groups: count })?;
        found.options.set_option(name, value)?;
        self.regroup(groups)
    }

    /// Changes the bound of `kl_clip`; `None` switches it off.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] if it is not finite and above 0.
    pub fn set_kl_clip(&mut self, kl_clip: Option<f64>) -> Result<()> {
        self.options.set_option("kl_clip", kl_clip.unwrap_or(f64::NAN))
    }

    /// Changes the learning rate that `kl_clip` assumes.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] if it is not finite and at least 0.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.options.set_option("lr", lr)
    }

    /// Number of steps: of calls of [`precondition`](Self::precondition) whose gradients were finite.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Number of steps whose statistics were dropped because something in them, or in the gradients, was
    /// not finite.
    pub fn rejected_updates(&self) -> u64 {
        self.rejected
    }

    /// Failures of a layer since its last good refresh; `None` if there is no such layer.
    pub fn failures(&self, layer: &str) -> Option<u64> {
        self.layer(layer).map(|layer| layer.state.failures())
    }

    /// Counts failures of all layers from zero again, once their cause is gone.
    pub fn reset_failures(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.state.forgive());
    }

    /// The factors of a layer, L of its output gradients and R of its inputs; `None` if there is no such
    /// layer.
    pub fn factors(&self, layer: &str) -> Option<&[Factor<T::Compute>; 2]> {
        self.layer(layer).map(|layer| &layer.state.factors)
    }

    /// The registered layers, in their order.
    pub fn layers(&self) -> impl Iterator<Item = &LayerSpec> {
        self.layers.iter().map(|layer| &layer.spec)
    }

    /// Bytes held, sums of a step that has begun not counted.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        self.layers.iter().for_each(|layer| layer.count(&mut bytes));
        bytes
    }

    pub(super) fn layer(&self, name: &str) -> Option<&Layer<T>> {
        let (index, _) = self.places.get(name).filter(|(_, bias)| !bias)?;
        self.layers.get(*index)
    }

    fn group_of(&self, spec: &LayerSpec) -> usize {
        number_of(&self.groups, spec)
    }

    /// Takes over groups, if no factor would be stored in another way after the first step or its first
    /// statistics. Before that factors begin anew.
    pub(super) fn regroup(&mut self, groups: Vec<Group>) -> Result<()> {
        let mut changed = Vec::new();
        for layer in &self.layers {
            let (spec, number) = (&layer.spec, number_of(&groups, &layer.spec));
            let found = self.groups.get(layer.group).zip(groups.get(number));
            let fresh = self.steps == 0 && layer.sums.is_none() && !layer.state.has_started();
            let again = match found {
                Some((_, after)) if fresh => Some(Layer::new(spec.clone(), number, &after.options)),
                Some((before, after))
                    if !before.options.keeps_layout(&after.options, spec.factor_orders()) =>
                {
                    let what = "an option that decides how factors are stored";
                    return Err(Error::AlreadyStarted { what });
                }
                _ => None,
            };
            changed.push((number, again));
        }
        for (layer, (group, fresh)) in self.layers.iter_mut().zip(changed) {
            match fresh {
                Some(fresh) => *layer = fresh,
                None => layer.group = group,
            }
        }
        self.groups = groups;
        Ok(())
    }
}

/// The group of a layer: the last one that selects its weight.
fn number_of(groups: &[Group], spec: &LayerSpec) -> usize {
    let shape = spec.weight_shape();
    groups.iter().rposition(|group| group.select.matches(spec.weight(), &shape)).unwrap_or(0)
}

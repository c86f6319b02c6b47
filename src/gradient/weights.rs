//! The parameters that belong to gradients, for views that depend on both.

use super::source::Tree;
use crate::error::{Error, Result, check_length, check_shape};
use crate::numeric::Element;
use crate::params::{Manifest, ParamBuffers, ParamLeaf, ParamVisitor, Parameters};
use std::collections::BTreeMap;

/// Row-major copies of the parameters of every gradient of `tree`.
pub(super) fn weights_of<T: Element, P: Parameters<T> + ?Sized>(
    params: &mut P,
    tree: &Tree<'_, T>,
) -> Result<Vec<Vec<T>>> {
    let mut visitor = ParamVisitor::new(ParamBuffers::default(), Manifest::default());
    visitor.collect(params)?;
    copies(visitor, tree)
}

/// Apart from [`weights_of`], so that it is compiled once and not for every tree.
fn copies<T: Element>(visitor: ParamVisitor<'_, T>, tree: &Tree<'_, T>) -> Result<Vec<Vec<T>>> {
    let ParamVisitor { manifest, leaves, .. } = visitor;
    let mut by_name = BTreeMap::new();
    for (param, leaf) in leaves.into_iter().enumerate() {
        let name = manifest.name(param);
        if by_name.insert(name, (param, leaf)).is_some() {
            return Err(Error::DuplicateName { name: name.to_owned() });
        }
    }
    let copy = |grad: usize| {
        let (name, shape) = (tree.manifest.name(grad), tree.manifest.shape(grad));
        let unknown = || Error::unknown_gradient(name, by_name.keys().copied());
        let (param, leaf) = by_name.get(name).ok_or_else(unknown)?;
        check_shape(name, manifest.shape(*param), shape)?;
        let copy: Vec<T> = match leaf {
            ParamLeaf::Slice(data) => data.to_vec(),
            ParamLeaf::Strided(array) => array.iter().copied().collect(),
        };
        check_length(name, shape, shape.iter().product(), copy.len())?;
        Ok(copy)
    };
    (0..tree.sources.len()).map(copy).collect()
}

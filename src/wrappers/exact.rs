//! What an optimizer knows of parameters beyond the bits that they are stored in.

use super::leaves::PartParams;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::tree::TreeVec;
use std::collections::BTreeSet;

/// The slots of [`Rounding::Master`](crate::state::Rounding::Master) and
/// [`Rounding::Kahan`](crate::state::Rounding::Kahan).
const MASTER: &str = "master";
const KAHAN: &str = "kahan";

/// The parameters as exactly as the optimizer knows them; `None` if it knows no more than what is stored.
pub(super) fn exact<T: Element, O: Optimizer<T> + ?Sized>(
    inner: &mut O,
    params: &mut PartParams<'_, T>,
) -> Result<Option<TreeVec<T::Compute>>> {
    let mut known = BTreeSet::new();
    for slot in [MASTER, KAHAN] {
        inner.visit_slot(slot, &mut |name, _| {
            known.insert(name.to_owned());
        });
    }
    if !params.names().any(|name| known.contains(name)) {
        return Ok(None);
    }
    let mut exact: TreeVec<T::Compute> = TreeVec::of(&mut *params)?;
    inner.visit_slot(MASTER, &mut |name, master| {
        for (x, &master) in exact.get_mut(name).into_iter().flatten().zip(&*master) {
            // a parameter that the program has written to since counts as it stands
            if T::store(master) == T::store(*x) {
                *x = master;
            }
        }
    });
    inner.visit_slot(KAHAN, &mut |name, kahan| {
        for (x, &rest) in exact.get_mut(name).into_iter().flatten().zip(&*kahan) {
            *x += rest;
        }
    });
    Ok(Some(exact))
}

/// Tells the optimizer what the parameters of these names are exactly; they are stored already.
pub(super) fn set_exact<T: Element, O: Optimizer<T> + ?Sized>(
    inner: &mut O,
    exact: &TreeVec<T::Compute>,
    chosen: impl Fn(&str) -> bool,
) {
    inner.visit_slot(MASTER, &mut |name, master| {
        let leaf = exact.get(name).filter(|_| chosen(name));
        for (master, &x) in master.iter_mut().zip(leaf.iter().flatten()) {
            *master = x;
        }
    });
    inner.visit_slot(KAHAN, &mut |name, kahan| {
        let leaf = exact.get(name).filter(|_| chosen(name));
        for (rest, &x) in kahan.iter_mut().zip(leaf.iter().flatten()) {
            *rest = x - T::store(x).load();
        }
    });
}

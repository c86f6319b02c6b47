//! Parameters that get more rows while training: a larger vocabulary.
//!
//! The state of the old rows stays as it is. The new rows are a tensor of their own to the method, with a state
//! and a count of steps of their own: moments of 0 under a large count would be corrected for a bias that they do
//! not have, and the first step would be several times too long.

use super::core::Engine;
use super::grown::{known_shapes, with_rows};
use super::tracked::Tracked;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::method::{SharedState, TensorMethod};

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// Announces that a parameter has `rows` rows from the next step on.
    pub fn grow_rows(&mut self, name: &str, rows: usize) -> Result<()> {
        let known = known_shapes(&self.tracked).find(|(known, _)| *known == name);
        let (_, shape) = known.ok_or_else(|| Error::MissingParameter { name: name.to_owned() })?;
        if M::Shared::SOME {
            let problem = "it remembers one vector of all parameters together";
            let (optimizer, name) = (self.name(), name.to_owned());
            return Err(Error::CannotGrow { optimizer, name, problem });
        }
        let found = with_rows(&shape, rows);
        match shape.first() {
            Some(&before) if rows == before => {
                self.growth.withdraw(name);
            }
            Some(&before) if rows > before => {
                self.growth.announce(name, rows);
            }
            _ => {
                let name = name.to_owned();
                return Err(Error::ShapeMismatch { name, expected: shape, found });
            }
        }
        self.plan.stale = true;
        Ok(())
    }

    /// Makes the state of announced rows of a parameter whose elements are `data`.
    pub(super) fn adopt_rows(&mut self, name: &str, group: usize, data: &[T]) {
        let Some(rows) = self.growth.rows(name) else { return };
        let known = known_shapes(&self.tracked).find(|(known, _)| *known == name);
        let Some((_, shape)) = known else { return };
        let row = shape.first().copied().unwrap_or(0);
        let own = with_rows(&shape, rows.saturating_sub(row));
        let width = shape.iter().skip(1).product::<usize>();
        let (method, data) = (self.groups.get(group), data.get(row * width..));
        if let (Some(group_of), Some(data)) = (method, data) {
            let state = group_of.method.init(&own, data, &self.storage);
            self.tracked.push(Tracked::new((name, row), &own, group, state));
        }
        self.growth.withdraw(name);
    }
}

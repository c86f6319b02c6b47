//! One target for each reader.

mod configurations;
mod exchanges;
mod gradients;
mod ledgers;
mod messages;
mod state_dicts;
mod subjects;

use crate::harness::Target;

type Make = fn() -> Box<dyn Target>;

pub fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("state_dict", || Box::new(state_dicts::StateDicts::new())),
        ("messages", || Box::new(messages::Messages)),
        ("exchanges", || Box::new(exchanges::Exchanges)),
        ("ledgers", || Box::new(ledgers::Ledgers)),
        ("configurations", || Box::new(configurations::Configurations::new())),
        ("gradients", || Box::new(gradients::Trees::new())),
    ]
}

pub fn names() -> String {
    all().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

//! Configurations behind a pointer.

use crate::optimizer::Opt;
use eigenstep::Result;
use eigenstep::hyper::{Hyper, Hyperparameters};
use eigenstep::numeric::Element;
use eigenstep::optim::Slot;
use std::any::{Any, TypeId};
use std::fmt::{Debug, Formatter};

/// A configuration that the list of promises can be run for.
pub trait Tested: Hyperparameters {
    /// Whether training and evaluation happen at different points.
    const HAS_EVAL_MODE: bool;

    /// The default, but for intervals too long for a test.
    fn for_tests() -> Self;
    /// Whether a step takes a curvature.
    fn reads_curvature() -> bool {
        false
    }
    /// The slots that can have a precision of their own.
    fn slots() -> Vec<Slot>;
    /// The optimizer.
    fn optimizer<T: Element>(self) -> Result<Opt<T>>;
}

/// An optimizer that promises are checked for.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its name, as in error messages and state dicts.
    pub name: &'static str,
    /// Whether training and evaluation happen at different points.
    pub has_eval_mode: bool,
    reads_curvature: fn() -> bool,
    slots: fn() -> Vec<Slot>,
    config: fn() -> Config,
}

impl Subject {
    /// The optimizer with this configuration.
    pub const fn of<C: Tested>() -> Self {
        Self {
            name: C::NAME,
            has_eval_mode: C::HAS_EVAL_MODE,
            reads_curvature: C::reads_curvature,
            slots: C::slots,
            config: || Config::from(C::for_tests()),
        }
    }

    /// The default configuration, but for intervals too long for a test.
    pub fn config(&self) -> Config {
        (self.config)()
    }

    /// Its optimizer.
    pub fn optimizer<T: Element>(&self) -> Result<Opt<T>> {
        self.config().optimizer()
    }

    /// Whether a step takes a curvature.
    pub fn reads_curvature(&self) -> bool {
        (self.reads_curvature)()
    }

    /// The slots that can have a precision of their own.
    pub fn slots(&self) -> Vec<Slot> {
        (self.slots)()
    }
}

/// A configuration of any method.
pub struct Config(Box<dyn AnyConfig>);

trait AnyConfig: Any + Debug + Send + Sync {
    fn copy(&self) -> Config;
    fn subject(&self) -> Subject;
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>));
    fn validate(&self) -> Result<()>;
    fn option(&self, name: &str) -> Option<f64>;
    fn set_option(&mut self, name: &str, value: f64) -> Result<()>;
    /// An `Opt<T>` for the `T` that `element` is; `None` for types that are no elements.
    fn optimizer(&self, element: TypeId) -> Option<Result<Box<dyn Any>>>;
}

impl<C: Tested> AnyConfig for C {
    fn copy(&self) -> Config {
        Config::from(self.clone())
    }
    fn subject(&self) -> Subject {
        Subject::of::<C>()
    }
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        Hyperparameters::visit_options(self, visitor);
    }
    fn validate(&self) -> Result<()> {
        Hyperparameters::validate(self)
    }
    fn option(&self, name: &str) -> Option<f64> {
        Hyperparameters::option(self, name)
    }
    fn set_option(&mut self, name: &str, value: f64) -> Result<()> {
        Hyperparameters::set_option(self, name, value)
    }
    fn optimizer(&self, element: TypeId) -> Option<Result<Box<dyn Any>>> {
        macro_rules! element {
            ($element:ty) => {
                if element == TypeId::of::<$element>() {
                    let opt: Result<Opt<$element>> = Tested::optimizer(self.clone());
                    return Some(opt.map(|opt| Box::new(opt) as Box<dyn Any>));
                }
            };
        }
        element!(f32);
        element!(f64);
        eigenstep::half_elements!(element);
        None
    }
}

impl Config {
    /// What it is a configuration of.
    pub fn subject(&self) -> Subject {
        self.0.subject()
    }

    /// The configuration as its own type, if that is `C`.
    pub fn get<C: Tested>(&self) -> Option<&C> {
        (&*self.0 as &dyn Any).downcast_ref()
    }

    /// [`Hyperparameters::visit_options`].
    pub fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.0.visit_options(visitor);
    }

    /// [`Hyperparameters::validate`].
    pub fn validate(&self) -> Result<()> {
        self.0.validate()
    }

    /// [`Hyperparameters::option`].
    pub fn option(&self, name: &str) -> Option<f64> {
        self.0.option(name)
    }

    /// [`Hyperparameters::set_option`].
    pub fn set_option(&mut self, name: &str, value: f64) -> Result<()> {
        self.0.set_option(name, value)
    }

    /// The optimizer.
    pub fn optimizer<T: Element>(&self) -> Result<Opt<T>> {
        let opt = self.0.optimizer(TypeId::of::<T>()).expect("an element type of this build")?;
        Ok(*opt.downcast().expect("an optimizer of the type that was asked for"))
    }
}

impl<C: Tested> From<C> for Config {
    fn from(config: C) -> Self {
        Self(Box::new(config))
    }
}

impl Clone for Config {
    fn clone(&self) -> Self {
        self.0.copy()
    }
}

/// As the configuration itself writes it.
impl Debug for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

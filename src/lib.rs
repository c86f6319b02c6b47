//! Training optimizers with a PyTorch-style API, for programs that keep their own arrays. A step
//! borrows parameters and gradients from wherever they are, changes the parameters in place, and keeps
//! its state in 32, 16, 8 or 4 bits.
//!
//! ```
//! use eigenstep::{parameters, prelude::*};
//! use ndarray::{Array1, Array2, Axis, array};
//!
//! struct Linear { weight: Array2<f32>, bias: Array1<f32> }
//! parameters!(Linear { weight, bias }: f32);
//!
//! let x = array![[0.0f32], [1.0], [2.0], [3.0]];
//! let y = &x * 2.0 - 1.0;
//! let mut model = Linear { weight: Array2::zeros((1, 1)), bias: Array1::zeros(1) };
//!
//! let mut opt = AdamW { lr: 0.05, weight_decay: 1e-3, ..AdamW::default() }
//!     .build()?
//!     .with_group(Select::name("bias"), |group| group.weight_decay = 0.0)?;
//! for _ in 0..1000 {
//!     let error = x.dot(&model.weight) + &model.bias - &y;
//!     let grads = Linear { weight: x.t().dot(&error), bias: error.sum_axis(Axis(0)) };
//!     opt.step(&mut model, &grads)?;
//! }
//! assert!((model.weight[[0, 0]] - 2.0).abs() < 0.02 && (model.bias[0] + 1.0).abs() < 0.02);
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! # Which optimizer?
//! If you do not know, take [`AdamW`](first_order::AdamW) and tune its learning rate.
//!
//! | you want | take |
//! |---|---|
//! | no learning rate to tune | [`Prodigy`](first_order::Prodigy) |
//! | no schedule, and no end of training in advance | [`ScheduleFreeAdamW`](first_order::ScheduleFreeAdamW) |
//! | fewer steps to the same loss | [`Muon`](second_order::Muon), [`Soap`](second_order::Soap), [`Shampoo`](second_order::Shampoo) |
//! | less memory | `AdamW` in 8 or 4 bits, [`Lion`](first_order::Lion), [`MicroAdam`](error_feedback::MicroAdam), [`GaLore`](low_rank::GaLore) |
//! | batches of tens of thousands | [`Lamb`](first_order::Lamb) |
//! | another method for some of the parameters | [`Partitioned`](wrappers::Partitioned) |
//! | to train without a backward pass | [`Spsa`](zeroth_order::Spsa) |
//!
//! # Methods
//! | method | state, bytes per `f32` parameter | needs | good for |
//! |---|---|---|---|
//! | [`Sgd`](first_order::Sgd) | 0; with momentum 4 | a tuned `lr` | well-conditioned problems, least memory |
//! | [`Adam`](first_order::Adam) | 8; with `amsgrad` 12 | – | reproducing results made with it |
//! | [`AdamW`](first_order::AdamW) | 8; with `amsgrad` 12 | – | nearly everything |
//! | [`NAdam`](first_order::NAdam) | 8, and 8 per tensor | – | Adam with Nesterov's momentum |
//! | [`RAdam`](first_order::RAdam) | 8 | – | Adam without a warm-up |
//! | [`Adamax`](first_order::Adamax) | 8 | – | sparse gradients, outliers |
//! | [`SparseAdam`](first_order::SparseAdam) | 8 | [`RowGradient`](params::RowGradient) | large embeddings with gradients of few rows |
//! | [`Fromage`](first_order::Fromage) | 0, and 8 per tensor | one pass more; two with `p_bound` | one learning rate for all layers |
//! | [`NovoGrad`](first_order::NovoGrad) | 4, and 8 per tensor | one pass more over the gradients | gradients of very different size from layer to layer |
//! | [`AdaBelief`](first_order::AdaBelief) | 8; with `amsgrad` 12 | – | noisy training: steps as large as the gradient is predictable |
//! | [`Yogi`](first_order::Yogi) | 8 | – | gradients that are rare and large |
//! | [`Adopt`](first_order::Adopt) | 8 | – | convergence with any β₂ |
//! | [`LaProp`](first_order::LaProp) | 8, and 8 per tensor; with `amsgrad` 4 more | – | a large β₁ or a small β₂ |
//! | [`AdaBound`](first_order::AdaBound) | 8; with `amsgrad` 12 | the learning rate of SGD | a fast start that ends as SGD |
//! | [`AdaMod`](first_order::AdaMod) | 12 | – | training without a warm-up |
//! | [`StableAdamW`](first_order::StableAdamW) | 8 | one pass more over memory | losses with spikes, low precision |
//! | [`AdEmaMix`](first_order::AdEmaMix) | 12 | many thousand steps | long training of large models |
//! | [`QhAdam`](first_order::QhAdam) | 8, and 16 per tensor | – | Adam that weighs the newest gradient more |
//! | [`Qhm`](first_order::Qhm) | 4 | a tuned `lr` | momentum that weighs the newest gradient more |
//! | [`AggMo`](first_order::AggMo) | 4 for each of `betas`: 12 | a tuned `lr` | long memory without oscillation |
//! | [`Adai`](first_order::Adai) | 12 | one pass more over memory; a tuned `lr` | flat minima: the inertia is adapted, not the step |
//! | [`Pid`](first_order::Pid) | 12; with `derivative = 0` 4 | a tuned `lr` | momentum that overshoots |
//! | [`Adan`](first_order::Adan) | 16 | with `max_grad_norm` one pass more | large learning rates, vision and language |
//! | [`Mars`](first_order::Mars) | 12; with `amsgrad` 16 | one pass more over memory | noisy gradients of large models; AdamW or Lion inside |
//! | [`DiffGrad`](first_order::DiffGrad) | 12; with `amsgrad` 16 | – | Adam that overshoots near a minimum |
//! | [`Adagrad`](first_order::Adagrad) | 4 | – | sparse gradients |
//! | [`Adadelta`](first_order::Adadelta) | 8 | – | no learning rate, parameters in units of their own |
//! | [`MadGrad`](first_order::MadGrad) | 12; without momentum 8 | – | vision, sparse gradients: generalises as SGD does |
//! | [`RmsProp`](first_order::RmsProp) | 4; with momentum 8, centered 4 more | – | recurrent networks, reinforcement learning |
//! | [`RmsPropTf`](first_order::RmsPropTf) | 4; with momentum 8, centered 4 more | – | results of TensorFlow's RMSprop |
//! | [`Ftrl`](first_order::Ftrl) | 8 | a constant `lr` | linear models with very many features |
//! | [`Lion`](first_order::Lion) | 4 | a third to a tenth of AdamW's `lr` | large models, few bits |
//! | [`SignSgd`](first_order::SignSgd) | 0; with momentum 4 | a schedule that ends at 0 | gradients of which only signs count |
//! | [`Rprop`](first_order::Rprop) | 8 | gradients without noise | full batches, badly scaled problems |
//! | [`Tiger`](first_order::Tiger) | 4 | a third to a tenth of AdamW's `lr` | least memory, few bits |
//! | [`Amos`](first_order::Amos) | 0, with momentum 4; 24 per tensor | one pass more over the gradients | pre-training without a schedule or decay to tune |
//! | [`Lamb`](first_order::Lamb) | 8 | one pass more over memory; two with `max_grad_norm` | very large batches |
//! | [`Lars`](first_order::Lars) | 4 | one pass more over memory | very large batches, convolutional networks |
//! | [`Prodigy`](first_order::Prodigy) | 16; `8 + 8/k` with `slice_p = k` | one pass more; one `lr` for all groups | no learning rate to tune |
//! | [`DAdaptAdam`](first_order::DAdaptAdam) | 12 | one pass more; one `lr` for all groups | the same, in fewer bytes |
//! | [`DAdaptSgd`](first_order::DAdaptSgd) | 8 | one pass more; one `lr` for all groups | SGD without a learning rate to tune |
//! | [`DAdaptAdagrad`](first_order::DAdaptAdagrad) | 12 | one pass more; one `lr` for all groups | Adagrad without a learning rate to tune |
//! | [`DAdaptLion`](first_order::DAdaptLion) | 8 | one pass more; one `lr` for all groups | signs without a learning rate to tune |
//! | [`Adafactor`](first_order::Adafactor) | 4(m + n)/(mn) + 0.25 at most for an m × n matrix, vectors 4; with `beta1` 4 more | two passes more | models whose state does not fit |
//! | [`Came`](first_order::Came) | 4, and 8(m + n)/(mn) + 0.5 at most for an m × n matrix, vectors 12 | three passes more | the same, with momentum and a confidence |
//! | [`ScheduleFreeAdamW`](first_order::ScheduleFreeAdamW) | 8 | [`eval`](optim::Optimizer::eval) before the model is used | no schedule, open-ended training |
//! | [`ScheduleFreeSgd`](first_order::ScheduleFreeSgd) | 4 | [`eval`](optim::Optimizer::eval) before the model is used | the same, where SGD with momentum does well |
//! | [`ScheduleFreeRAdam`](first_order::ScheduleFreeRAdam) | 8 | [`eval`](optim::Optimizer::eval) before the model is used | the same without a warm-up |
//! | [`PrimalAveraging`](first_order::PrimalAveraging) | 4 | [`eval`](optim::Optimizer::eval) before the model is used | averaging instead of momentum and schedule, alone or inside `Shampoo` |
//! | [`Asgd`](first_order::Asgd) | 4 | – | convex problems |
//! | [`Classp`](first_order::Classp) | 4 | – | one task after another |
//! | [`SpsMax`](first_order::SpsMax) | 0 | the loss, and a lower bound of it; one pass more | the step size from the loss: models that fit their data |
//! | [`Momo`](first_order::Momo) | 4, and 8 per tensor | the loss; one pass more | momentum whose learning rate the loss limits |
//! | [`MomoAdam`](first_order::MomoAdam) | 8, and 8 per tensor | the loss; one pass more | Adam whose learning rate the loss limits |
//! | [`AdaHessian`](first_order::AdaHessian) | 8, and 8 per tensor | a Hessian-vector product | badly scaled problems with exact curvature at hand |
//! | [`Sophia`](first_order::Sophia) | 8 | a curvature every ten steps | language models |
//! | [`Sgld`](first_order::Sgld) | 0; preconditioned 4 | a small `lr`, or one that decreases | samples from a posterior instead of its maximum |
//! | [`Cautious`](first_order::Cautious), [`Grams`](first_order::Grams) around any of these whose step is a direction times the learning rate | the inner rule's | – | no step against the gradient |
//! | [`GrokFast`](first_order::GrokFast) around any of these | 4, and the inner rule's | – | what gradients have in common over many steps, amplified |
//! | [`WithDecay`](first_order::WithDecay) around any of these | the inner rule's | – | another form of weight decay |
//! | [`Projected`](constrained::Projected) around any of these but the `ScheduleFree…` methods and [`PrimalAveraging`](first_order::PrimalAveraging) | the inner rule's | – | parameters within bounds |
//! | [`Muon`](second_order::Muon) | matrices 4, all else 8 | ten matrix products a step | hidden matrices of networks |
//! | [`Shampoo`](second_order::Shampoo) | 16 for a square matrix, 2.25 with 4-bit eigenvectors; the inner rule's | two matrix products a step, roots every few steps | fewer, better steps |
//! | [`Soap`](second_order::Soap) | 24 for a square matrix, 9.1 with 4-bit bases | five matrix products a step | the same, and tolerates a stale eigenbasis |
//! | [`Scion`](second_order::Scion) | 4; without an average 0 | ten matrix products a step, for `Spectral` | whole networks, a norm for every layer |
//! | [`SteepestDescent`](second_order::SteepestDescent) | 4 with an average; the inner rule's | ten matrix products a step | Muon's step, or signs, with a rule of your own |
//! | [`NetworkFactors`](curvature::NetworkFactors), before any of these | 16 for a square matrix, 2.25 in 4 bits; with `Ekfac` 4 more | the layers' inputs and output gradients | K-FAC, EKFAC and AdaBK for all layers |
//! | [`LayerFactors`](curvature::LayerFactors), before any of these | 16 for a square matrix, 2.25 in 4 bits | a layer's inputs and output gradients | the same for one layer |
//! | [`MFac`](error_feedback::MFac) | 4m for the last m gradients; 6mρ + 4 at density ρ | a pass over the window | curvature of the whole model |
//! | [`Ggt`](error_feedback::Ggt) | the same | a decomposition of order m | convex problems, badly conditioned |
//! | [`MicroAdam`](error_feedback::MicroAdam) | 1 | – | fine-tuning, least memory |
//! | [`ErrorFeedback`](error_feedback::ErrorFeedback) around any of these | 4, and the method's | a pass over the residual | compressed gradients, nothing of them lost |
//! | [`EfAdagrad`](error_feedback::EfAdagrad) | 8 | the same | Adagrad on compressed gradients |
//! | [`Apollo`](low_rank::Apollo) | 12r/n for an n × n matrix of rank r, next to none in `Apollo::mini`; all else 8 | a product with a low-rank factor a step | large matrices, least memory, steps of full rank |
//! | [`GaLore`](low_rank::GaLore) | 12r/n for an n × n matrix of rank r, all else 8 | two products with a low-rank factor a step, an SVD every 200 steps | large matrices, least memory |
//! | [`LdAdam`](low_rank::LdAdam) | 4 + 12r/n for an n × n matrix of rank r, all else 8 | a dozen products with low-rank factors a step | the same, and nothing of a gradient is lost |
//!
//! Wrappers work with any of these ([`wrappers`]):
//!
//! | wrapper | state of its own, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Partitioned`](wrappers::Partitioned) | 0 | different methods for different parameters |
//! | [`Lookahead`](wrappers::Lookahead) | 4 | fewer oscillations, less tuning |
//! | [`Sam`](wrappers::Sam) | 4, and a second evaluation per step | generalisation: SAM and ASAM |
//! | [`Ignite`](wrappers::Ignite) | 8, and one or two more evaluations | a bound on the norm of a gradient, or a penalty of it |
//! | [`Ema`](wrappers::Ema), [`Swa`](wrappers::Swa) beside the training | 4 | a better model than the last step's |
//!
//! Every optimizer runs with its state in fewer bits, also inside a wrapper, whose own weights stay in full:
//! [`with_state_precision`](optim::Optim::with_state_precision) takes a [`Precision`](quant::Precision).
//! The state of `AdamW` is 2.03 bytes per parameter in 8 bits and 1.06 in 4.
//!
//! Without a backward pass, gradients for any of them are estimated from losses ([`zeroth_order`]):
//!
//! | estimator | evaluations per step | good for |
//! |---|---|---|
//! | [`Spsa`](zeroth_order::Spsa) | 2q for q directions | fine-tuning by forward passes only: MeZO, evolution strategies |
//! | [`Coordinate`](zeroth_order::Coordinate) | d + 1 for d coordinates | few parameters; no variance |
//! | [`Quzo`](zeroth_order::Quzo) | 2q | weights on a grid of few bits |
//! | [`IntegerQuzo`](zeroth_order::IntegerQuzo) | 2q | weights that are stored as integers |
//! | [`Fogzo`](zeroth_order::Fogzo) | 2q and a backward pass | weights that are rounded in the forward pass |
//!
//! # How it composes
//! - **Gradients are a tree of names.** Any type that can list its arrays is a model
//!   ([`params`]): arrays, structs with [`parameters!`], `Vec`, `Option`, tuples, maps, plain
//!   slices. Gradients may be dense, a few rows, or generated chunk by chunk. Clipping,
//!   accumulation and loss scaling are views of them ([`gradient`]).
//! - **A rule is the mathematics of one element** ([`Rule`](optim::Rule)): gradient and state in,
//!   direction and state out. Threads, instruction sets, groups, bits and files are the engine's, so
//!   a rule of your own has all of them from the start.
//! - **A matrix method is the mathematics of one block** ([`MatrixMethod`](optim::MatrixMethod)), and
//!   any rule can be inside it, as its *inner rule*: `Shampoo { inner: Lion::default(), .. }`.
//! - **An estimate is a gradient** ([`zeroth_order`]): an estimator makes a gradient from losses at
//!   perturbed parameters, for any optimizer, without storing it. Categories and integers are in
//!   [`discrete`].
//! - **Precision is storage.** Any rule takes any state precision; `bf16` and `f16` parameters keep
//!   small steps through [`Rounding`](state::Rounding).
//! - **One optimizer type**, [`Optim`](optim::Optim), holds groups, step counts and state, and is
//!   used through the object-safe trait [`Optimizer`](optim::Optimizer). Options change by name at
//!   any time ([`set_option`](optim::Optimizer::set_option)).
//! - **A step succeeds or changes nothing.** Whatever is wrong with a step is found before it changes
//!   anything; the error says what, where, what was expected and what was found ([`Error`]). The
//!   non-finite check reads the gradients once more; [`NonFinite`](optim::NonFinite) switches it off.
//! - **A model is one vector** ([`tree`]): norms, directions, averages and snapshots of all parameters, a
//!   few lines for each method that needs them.
//! - **Wrappers take any optimizer** ([`wrappers`]), and averages of weights are updated beside it.
//! - **Schedules** are functions of the step ([`schedule`]) and write options like you do.
//! - **The same bits** for any number of threads, any instruction set, and after saving and loading
//!   ([`StateDict`](state::StateDict)).
//!
//! # Features
//! | feature | default | adds |
//! |---|---|---|
//! | `std` | yes | nothing; reserved, the crate needs the standard library |
//! | `rayon` | yes | threads; the same bits without |
//! | `faer` | yes | fast matrix products and decompositions in [`linalg`] |
//! | `half` | no | `bf16` and `f16` parameters |
//! | `safetensors` | no | files of state dicts |
//! | `serde` | no | configurations, schedules and state dicts as JSON and the like; switch on `float_roundtrip` of `serde_json` for dicts that come back to the bit |
//! | `lapack-…` | no | LAPACK as another backend of [`linalg`]; slow, for checks |
//!
//! faer is most of the time of a first build. Everything works without it, but methods that multiply or
//! decompose matrices are slower:
//! `default-features = false, features = ["std", "rayon"]`.
//!
//! # Guide
//! In the folder `docs/` of the repository: `start.md` (from zero to a training loop), `choosing.md`,
//! `recipes.md` (methods that are compositions of others), `groups.md`, `precision.md`,
//! `second_order.md`, `error_feedback.md`, `zeroth_order.md`, `checkpoints.md`, `determinism.md`,
//! `extending.md`, `trees.md` (a model as one vector),
//! `averages.md` (averages of weights, Lookahead, SAM), `pytorch.md` (old call → our call) and
//! `benchmarks.md`.

mod config_file;
pub mod constrained;
pub mod curvature;
pub mod discrete;
pub mod distributed;
pub mod error;
pub mod error_feedback;
pub mod first_order;
pub mod gradient;
pub mod hyper;
pub mod kernel;
pub mod linalg;
pub mod low_rank;
pub mod numeric;
pub mod optim;
pub mod params;
pub mod prelude;
pub mod quant;
pub mod schedule;
pub mod second_order;
pub mod state;
pub mod tree;
pub mod wrappers;
pub mod zeroth_order;

pub use error::{Error, Result};

/// Compiles and runs every code block of the guide.
#[cfg(doctest)]
mod guide {
    macro_rules! pages {
        ($($name:ident = $file:literal;)*) => {
            $(#[doc = include_str!($file)] struct $name;)*
        };
    }
    pages! {
        Readme = "../README.md";
        Contributing = "../CONTRIBUTING.md";
        Start = "../docs/start.md";
        Choosing = "../docs/choosing.md";
        Recipes = "../docs/recipes.md";
        Groups = "../docs/groups.md";
        Precision = "../docs/precision.md";
        Checkpoints = "../docs/checkpoints.md";
        Determinism = "../docs/determinism.md";
        Extending = "../docs/extending.md";
        Trees = "../docs/trees.md";
        Averages = "../docs/averages.md";
        SecondOrder = "../docs/second_order.md";
        ErrorFeedback = "../docs/error_feedback.md";
        ZerothOrder = "../docs/zeroth_order.md";
        Pytorch = "../docs/pytorch.md";
        Benchmarks = "../docs/benchmarks.md";
    }
}

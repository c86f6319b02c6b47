//! Sizes and counts that no program means: refused with the name of the field, before memory is asked for.
// a test that fails says so by panicking
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;

use eigenstep::Error;
use eigenstep::distributed::{GradExchange, LocalComm, PowerSgd, SingleProcess};
use eigenstep::error_feedback::{Compression, LowRankConfig, ResidualFormat};
use eigenstep::gradient::clip_grad_norm;
use eigenstep::linalg::{CoupledNewton, matrix_shape, merge_leading_dims, merge_small_dims};
use eigenstep::optim::Optimizer;
use eigenstep::params::{Flat, FlatMut, Generate, GradVisitor, Gradients, RowGradient};
use eigenstep::prelude::*;
use eigenstep::second_order::factor::RootSolver;
use eigenstep::second_order::soap::{BasisSolver, BasisStorage};
use eigenstep::state::{Dtype, Scalar, StateTensor};
use model::*;
use ndarray::{Array1, Array2};
use std::time::{Duration, Instant};

/// The options of every method, each with the largest count: the method is refused under the name of
/// the option, or it is built and takes a step in no time.
fn large_counts(subject: &Subject) {
    for (name, range, _) in options(&subject.config()) {
        for count in [2f64.powi(31), 2f64.powi(50), 2f64.powi(53)] {
            let mut config = subject.config();
            if !range.contains(count) || range.contains(count + 0.5) {
                continue;
            }
            let start = Instant::now();
            match config.set_option(name, count).and_then(|()| config.optimizer::<f32>()) {
                Err(Error::InvalidHyperparameter { field, .. }) => assert_eq!(field, name),
                Err(other) => panic!("{}: `{name}`: {other}", subject.name),
                Ok(mut opt) => {
                    let mut params = leaves(1, &[&[6, 5], &[4], &[]]);
                    let grads = gradients(0, &params);
                    opt.step(&mut params.as_mut_slice(), &inputs(subject, 0, &grads)).unwrap();
                }
            }
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(60),
                "{}: `{name}` = {count}: {took:?}",
                subject.name
            );
        }
    }
}

macro_rules! every_method {
    ($rule:ident) => {
        large_counts(&named::$rule);
    };
}

#[test]
fn no_count_of_any_method_is_too_large() {
    eigenstep::for_each_first_order!(every_method);
    eigenstep::for_each_second_order!(every_method);
    eigenstep::for_each_low_rank!(every_method);
    eigenstep::for_each_windowed!(every_method);
    eigenstep::for_each_error_feedback!(every_method);
}

fn refused<X>(field: &str, built: Result<X>) {
    match built {
        Err(Error::InvalidHyperparameter { field: found, .. }) => assert_eq!(found, field),
        Err(other) => panic!("`{field}`: {other}"),
        Ok(_) => panic!("`{field}` was accepted"),
    }
}

const ENDLESS: usize = 1 << 50;

#[test]
fn loops_inside_of_a_step_end() {
    type Plain = Shampoo<Sgd>;
    let root = |root| Plain { root, ..Plain::default() }.build::<f32>();
    refused("max_iterations", root(RootSolver::Qr { tolerance: 0.0, max_iterations: ENDLESS }));
    let limits = CoupledNewton { max_iterations: ENDLESS, ..CoupledNewton::default() };
    refused("max_iterations", root(RootSolver::CoupledNewton(limits)));
    let coupled = |order, max_iterations| {
        root(RootSolver::CoupledHigherOrder { order, tolerance: 0.0, max_iterations })
    };
    refused("max_iterations", coupled(3, ENDLESS));
    refused("order", coupled(ENDLESS, 10));
    let FactorStorage::QuantizedEigen { codec, .. } = FactorStorage::EIGEN4 else { panic!() };
    let storage = |rectify_update, rectify_root| {
        let storage = FactorStorage::QuantizedEigen { codec, rectify_update, rectify_root };
        Plain { storage, ..Plain::default() }.build::<f32>()
    };
    refused("rectify_update", storage(ENDLESS, 0));
    refused("rectify_root", storage(0, ENDLESS));
    let soap = |solver, storage| Soap { solver, storage, ..Soap::default() }.build::<f32>();
    let qr = BasisSolver::Qr { max_iterations: ENDLESS, tolerance: 0.0 };
    refused("max_iterations", soap(qr, BasisStorage::Full));
    let storage = BasisStorage::Quantized { codec, rectify: ENDLESS };
    refused("rectify", soap(BasisSolver::default(), storage));
    let mut exchange = PowerSgd::<f32>::new(6, 8, 1, 0).unwrap();
    exchange.iterations = u64::MAX;
    refused("iterations", exchange.exchange(&SingleProcess, &mut [1.0; 48]));
}

#[test]
fn sizes_of_memory_are_bounded() {
    refused("size", LocalComm::workers(usize::MAX));
    refused("size", LocalComm::workers(0));
    let residual = ResidualFormat::Nibble { block: ENDLESS };
    let compression = Compression::LowRank(LowRankConfig { residual, ..LowRankConfig::default() });
    refused("residual.block", MFac { compression, ..MFac::default() }.build::<f32>());
    // as large as the shorter side: what a rank can be
    let compression =
        Compression::LowRank(LowRankConfig { rank: ENDLESS, ..LowRankConfig::default() });
    let mut opt = MFac { window: 2, compression, ..MFac::default() }.build::<f32>().unwrap();
    let mut w = Array2::<f32>::ones((6, 5));
    let g = w.clone();
    opt.step(&mut w, &g).unwrap();
}

struct Claims(Vec<usize>);
impl Generate<f32> for Claims {
    fn shape(&self) -> &[usize] {
        &self.0
    }
    fn fill(&self, _: usize, out: &mut [f32]) {
        out.fill(0.0);
    }
}
impl Gradients<f32> for Claims {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

/// Products that overflow, and products of zero elements whose other sizes overflow.
#[test]
fn shapes_that_cannot_be_counted_are_refused() {
    let mut opt = AdamW::default().build::<f32>().unwrap();
    for shape in [&[1 << 33, 1 << 33][..], &[1 << 60, 0], &[0, 1 << 33, 1 << 33], &[usize::MAX, 2]]
    {
        let length = |outcome: Result<()>| match outcome {
            Err(Error::LengthMismatch { shape: found, .. }) => assert_eq!(found, shape),
            other => panic!("{shape:?}: {other:?}"),
        };
        length(opt.step(&mut FlatMut::new(&mut [], shape), &Flat::new(&[], shape)));
        length(opt.step(&mut Array1::zeros(1), &Flat::new(&[], shape)));
        length(opt.step(&mut Array1::zeros(1), &Claims(shape.to_vec())));
        let rows = RowGradient::new(shape, vec![], Array2::<f32>::zeros((0, 0)));
        assert!(matches!(rows, Err(Error::ShapeMismatch { .. })), "{shape:?}");
        let mut dict = opt.state_dict();
        let tensor = StateTensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes: vec![] };
        assert_eq!(tensor.numel(), None);
        dict.tensors.insert("state.w.exp_avg".into(), tensor);
        #[cfg(feature = "safetensors")]
        assert!(matches!(dict.to_safetensors(), Err(Error::StateDict { .. })));
        let _ = (merge_small_dims(shape, 1024, Some(1)), merge_leading_dims(shape, 1024));
        let _ = matrix_shape(shape);
    }
    assert!(opt.state_dict().tensors.is_empty());
    let layer = LayerFactors::kfac().build::<f32>((1 << 33, 4));
    assert!(matches!(layer, Err(Error::InvalidHyperparameter { .. })), "{layer:?}");
}

/// No row of a width that nothing backs.
#[test]
fn rows_that_are_not_there_take_no_memory() {
    let rows = RowGradient::new(&[2, 1 << 50], vec![], Array2::<f32>::zeros((0, 1 << 50))).unwrap();
    assert_eq!(clip_grad_norm(&rows, 1.0).norm(), 0.0);
}

/// A dict of a few bytes that claims parameters of terabytes: every method refuses it, or holds nothing
/// for it until the parameter itself is there.
fn claims(subject: &Subject) {
    for config in [subject.config(), busy(subject)] {
        for precision in [Precision::Full, Precision::INT8_LINEAR, Precision::INT4_LPMM] {
            let build = || -> Opt<f32> {
                let opt: Opt<f32> = config.optimizer().unwrap();
                opt.with_state_precision(precision).unwrap()
            };
            for shape in ["1099511627776", "1048576,1048576", "1099511627776,0", "0,1099511627776"]
            {
                let mut opt = build();
                let mut dict = opt.state_dict();
                dict.scalars.insert("state.w.step".into(), Scalar::Int(1));
                dict.scalars.insert("state.w.group".into(), Scalar::Int(0));
                dict.scalars.insert("state.w.shape".into(), Scalar::Text(shape.into()));
                let start = Instant::now();
                let _ = opt.load_state_dict(&dict);
                assert!(start.elapsed() < Duration::from_secs(60), "{}: {shape}", subject.name);
            }
        }
    }
}

macro_rules! every_claim {
    ($rule:ident) => {
        claims(&named::$rule);
    };
}

#[test]
fn a_shape_alone_takes_no_memory() {
    eigenstep::for_each_first_order!(every_claim);
    eigenstep::for_each_second_order!(every_claim);
    eigenstep::for_each_low_rank!(every_claim);
    eigenstep::for_each_windowed!(every_claim);
    eigenstep::for_each_error_feedback!(every_claim);
}

/// Counters that cannot be counted on are refused; the largest that are not can be stepped with.
#[test]
fn counters_of_a_file_do_not_overflow() {
    let step = |opt: &mut dyn Optimizer<f32>| {
        let mut w = Array1::<f32>::ones(4);
        let g = w.clone();
        opt.step(&mut w, &g)
    };
    let key = "groups.0.scalars.k";
    for counter in [1u64 << 53, 1 << 60, u64::MAX] {
        let opts: [Box<dyn Optimizer<f32>>; 2] = [
            Box::new(Prodigy::default().build().unwrap()),
            Box::new(ScheduleFreeAdamW::default().build().unwrap()),
        ];
        for mut opt in opts {
            step(&mut *opt).unwrap();
            let mut dict = opt.state_dict();
            dict.scalars.insert(key.into(), Scalar::Float(counter as f64));
            dict.scalars.insert("state.param.step".into(), Scalar::Int((counter >> 1) as i64));
            match opt.load_state_dict(&dict) {
                Ok(()) => assert!(counter == 1 << 53),
                Err(error) => assert!(matches!(error, Error::StateDict { .. }), "{error}"),
            }
            step(&mut *opt).unwrap();
        }
    }
}

/// Loading takes time in proportion to the number of parameters, into an optimizer that has them, too.
#[test]
fn many_parameters_load_in_proportion() {
    let fastest = |count: usize| {
        let mut opt = AdamW::default().build::<f32>().unwrap();
        let mut params: Vec<Array1<f32>> = vec![Array1::ones(1); count];
        let grads = params.clone();
        opt.step(&mut params, &grads).unwrap();
        let dict = opt.state_dict();
        let load = |_| {
            let start = Instant::now();
            opt.load_state_dict(&dict).unwrap();
            start.elapsed()
        };
        let fastest = (0..5).map(load).min().unwrap();
        assert!(opt.state_dict() == dict);
        fastest
    };
    let (few, many) = (fastest(1_000), fastest(20_000));
    println!("1,000 parameters in {few:?}, 20,000 in {many:?}");
    // 20 times as many; quadratic would be 400 times as long
    assert!(many < few * 100, "{few:?}, {many:?}");
}

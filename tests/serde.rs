//! Configurations and state dicts as JSON.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use eigenstep::prelude::*;
use ndarray::array;

#[test]
fn a_configuration_file_names_only_what_differs() {
    let config: AdamW = serde_json::from_str(r#"{ "lr": 0.1, "betas": [0.8, 0.95] }"#).unwrap();
    assert_eq!(config, AdamW { lr: 0.1, betas: (0.8, 0.95), ..AdamW::default() });
    let text = serde_json::to_string(&Precision::INT4_LPMM).unwrap();
    assert_eq!(serde_json::from_str::<Precision>(&text).unwrap(), Precision::INT4_LPMM);
}

#[test]
fn a_state_dict_survives() {
    let mut w = array![1.0f32, 0.1];
    let mut opt = AdamW::default().build().unwrap();
    opt.step(&mut w, &array![0.3, -0.7]).unwrap();
    let state = opt.state_dict();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<StateDict>(&text).unwrap(), state);
}

#[test]
fn configurations_of_layers_survive_and_older_ones_load() {
    let network = NetworkFactors::kfac_pytorch();
    let text = serde_json::to_string(&network).unwrap();
    assert_eq!(serde_json::from_str::<NetworkFactors>(&text).unwrap(), network);
    // before there were several ways to invert
    let mut older = serde_json::to_value(LayerFactors::adabk()).unwrap();
    let fields = older.as_object_mut().unwrap();
    assert!(fields.remove("inverse").is_some() && fields.remove("from_first_step").is_some());
    assert_eq!(serde_json::from_value::<LayerFactors>(older).unwrap(), LayerFactors::adabk());
}

/// Through text and back, for everything that may be in a file.
fn survives<C>(config: &C) -> C
where
    C: serde::Serialize + for<'de> serde::Deserialize<'de> + std::fmt::Debug,
{
    let text = serde_json::to_string(config).unwrap();
    let again: C = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    // as text: one NaN is like another
    assert_eq!(format!("{again:?}"), format!("{config:?}"), "{text}");
    again
}

/// A configuration whose fields all have defaults: round trip, nothing given, a typing error.
fn is_a_file<C>()
where
    C: Default + serde::Serialize + for<'de> serde::Deserialize<'de> + std::fmt::Debug,
{
    survives(&C::default());
    let empty: C = serde_json::from_str("{}").unwrap();
    assert_eq!(format!("{empty:?}"), format!("{:?}", C::default()));
    let mut json = serde_json::to_value(C::default()).unwrap();
    json.as_object_mut().unwrap().insert("weigth_decay".into(), 0.1.into());
    let error = serde_json::from_value::<C>(json).err().unwrap().to_string();
    assert!(error.starts_with("unknown field `weigth_decay`, "), "{error}");
    if serde_json::to_value(C::default()).unwrap().get("weight_decay").is_some() {
        assert!(error.ends_with("did you mean `weight_decay`?"), "{error}");
    }
    // nested ones, too
    let mut json = serde_json::to_value(C::default()).unwrap();
    if let Some(inner) = json.get_mut("inner").and_then(|inner| inner.as_object_mut()) {
        inner.insert("learning_rate".into(), 0.1.into());
        let error = serde_json::from_value::<C>(json).err().unwrap().to_string();
        assert!(error.starts_with("unknown field `learning_rate`, "), "{error}");
    }
}

#[test]
fn every_method_is_a_file() {
    macro_rules! method {
        ($method:ident) => {
            is_a_file::<eigenstep::prelude::$method>();
        };
    }
    eigenstep::for_each_first_order!(method);
    eigenstep::for_each_second_order!(method);
    eigenstep::for_each_error_feedback!(method);
    eigenstep::for_each_windowed!(method);
    eigenstep::for_each_low_rank!(method);
    use eigenstep::constrained::Projected;
    use eigenstep::zeroth_order::{Coordinate, Spsa};
    is_a_file::<Cautious<Grams<Sgd>>>();
    // defaults of any inner rule, also where only one of them is `Default`
    let soap: Soap<Cautious<Lion>> =
        serde_json::from_str(r#"{ "inner": { "inner": { "lr": 0.5 } } }"#).unwrap();
    let lion = Lion { lr: 0.5, ..Lion::default() };
    assert_eq!(survives(&soap), Soap::with_inner(Cautious::with_inner(lion)));
    let feedback = r#"{ "feedback": false, "method": { "lr": 0.5 } }"#;
    let feedback: eigenstep::error_feedback::EfAdagrad = serde_json::from_str(feedback).unwrap();
    assert_eq!((feedback.feedback, feedback.method.0.lr), (false, 0.5));
    is_a_file::<Projected<AdamW>>();
    is_a_file::<Spsa>();
    is_a_file::<Coordinate>();
    is_a_file::<Ema>();
    let all = Projected { lower: f64::NEG_INFINITY, upper: 1.0, ..Projected::<Sgd>::default() };
    assert_eq!(survives(&all), all);
}

#[test]
fn every_option_of_gradients_is_a_file() {
    use eigenstep::gradient::*;
    macro_rules! views {
        ($($view:ident)*) => { $(is_a_file::<$view>();)* };
    }
    views!(ClipNorm LossScaling NormLimit GradientNoise AdaptiveClip PcGrad SignMask Normalize Centralize ProjectOut
        AutoClip ZClip DpSgd);
    let measured = ClipNorm { max_norm: f64::INFINITY, ..ClipNorm::default() };
    assert_eq!(survives(&measured), measured);
    let wide = NormLimit { factor: f64::INFINITY, ..NormLimit::default() };
    assert_eq!(survives(&wide), wide);
}

#[test]
fn every_schedule_is_a_file() {
    use eigenstep::schedule::*;
    macro_rules! schedules {
        ($($schedule:ident)*) => { $(is_a_file::<$schedule>();)* };
    }
    schedules!(Constant Linear Polynomial Step MultiStep Exponential CosineAnnealing CosineRestarts Cyclic
        OneCycle SwaLr Wsd WarmupCosine WarmupLinear WarmupCosineRestarts WarmupPolynomial CosineCycles Piecewise
        RateNoise InverseSqrt Noam Rex ReduceOnPlateau LayerwiseLr);
    let cyclic: Cyclic = serde_json::from_str(
        r#"{ "max_lr": [0.1, 0.2], "mode": { "ExpRange": { "gamma": 0.9 } } }"#,
    )
    .unwrap();
    assert_eq!(cyclic.max_lr, PerGroup::Each(vec![0.1, 0.2]));
}

#[test]
fn presets_have_names() {
    use eigenstep::second_order::{Graft, Pipeline};
    let shampoo: Shampoo<AdamW> = serde_json::from_str(
        r#"{ "storage": "EIGEN4", "pipeline": "SCALABLE", "graft": "RMSPROP" }"#,
    )
    .unwrap();
    let expected = Shampoo {
        storage: FactorStorage::EIGEN4,
        pipeline: Pipeline::SCALABLE,
        graft: Graft::RMSPROP,
        ..Shampoo::<AdamW>::default()
    };
    assert_eq!(shampoo, expected);
    assert_eq!(survives(&shampoo), expected);
    for (name, precision) in [
        ("INT8_LINEAR", Precision::INT8_LINEAR),
        ("INT4_LPMM", Precision::INT4_LPMM),
        ("Full", Precision::Full),
        ("Bf16", Precision::Bf16),
    ] {
        assert_eq!(serde_json::from_str::<Precision>(&format!("\"{name}\"")).unwrap(), precision);
        assert_eq!(survives(&precision), precision);
    }
    let error = serde_json::from_str::<Precision>("\"INT8_LINAER\"").unwrap_err().to_string();
    assert!(error.contains("INT8_LINEAR"), "{error}");
}

#[test]
fn infinities_and_nan_survive() {
    use eigenstep::schedule::{PlateauScheduler, ReduceOnPlateau};
    use eigenstep::state::Scalar;
    for x in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 5e-324, 0.1] {
        let Scalar::Float(found) = survives(&Scalar::Float(x)) else { panic!() };
        assert_eq!(found.to_bits(), x.to_bits());
    }
    // a whole number that was written by hand
    let scalar: Scalar = serde_json::from_str(r#"{ "Float": 3 }"#).unwrap();
    assert_eq!(scalar, Scalar::Float(3.0));
    assert!(serde_json::from_str::<Scalar>(r#"{ "Float": "3" }"#).is_err());
    let opt = Sgd::default().build::<f32>().unwrap();
    let plateau = PlateauScheduler::new(ReduceOnPlateau::default(), &opt).unwrap();
    let mut again = plateau.clone();
    again.load_state_dict(&survives(&plateau.state_dict())).unwrap();
    assert_eq!(again, plateau);
    survives(&Prodigy::default().build::<f32>().unwrap().state_dict());
}

#[test]
fn what_changes_gradients_survives() {
    use eigenstep::gradient::{
        AdaptiveClip, Centralize, ClipNorm, LossScaling, NormLimit, Normalize, ProjectOut, SignMask,
    };
    macro_rules! all { ($($config:ident),*) => { $(survives(&$config::default());)* } }
    all!(
        AdaptiveClip,
        Centralize,
        ClipNorm,
        LossScaling,
        NormLimit,
        Normalize,
        ProjectOut,
        SignMask
    );
    survives(&ClipNorm { max_norm: 0.5, norm_type: 1.0, error_if_nonfinite: true });
    survives(&ErrorFeedback::matrix(Muon::default()));
}

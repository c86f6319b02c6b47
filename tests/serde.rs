//! Configurations and state dicts as JSON.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

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

/// A configuration comes back, and a file that names nothing is the default.
fn survives<C>(config: C)
where
    C: serde::Serialize + serde::de::DeserializeOwned + Default + std::fmt::Debug,
{
    let text = serde_json::to_string(&config).unwrap();
    let back: C = serde_json::from_str(&text).unwrap();
    assert_eq!(format!("{back:?}"), format!("{config:?}"), "{text}");
    let empty: C = serde_json::from_str("{}").unwrap();
    assert_eq!(format!("{empty:?}"), format!("{:?}", C::default()));
}

#[test]
fn schedules_survive() {
    use eigenstep::schedule::{
        Anneal, Constant, CosineAnnealing, CosineRestarts, Exponential, InverseSqrt, LayerwiseLr,
        Linear, MultiStep, Noam, OneCycle, PerGroup, PlateauMode, Polynomial, ReduceOnPlateau, Rex,
        Step, SwaLr, WarmupCosine, WarmupLinear, Wsd,
    };
    macro_rules! all { ($($schedule:ident),*) => { $(survives($schedule::default());)* } }
    all!(Constant, CosineAnnealing, CosineRestarts, Exponential, InverseSqrt, LayerwiseLr, Linear);
    all!(MultiStep, Noam, OneCycle, Polynomial, ReduceOnPlateau, Rex, Step, SwaLr, WarmupCosine);
    all!(WarmupLinear, Wsd);
    survives(CosineAnnealing { t_max: 7, eta_min: 0.1 });
    let max_lr = PerGroup::Each(vec![0.1, 0.2]);
    survives(OneCycle { max_lr, anneal: Anneal::Linear, ..OneCycle::default() });
    survives(ReduceOnPlateau { mode: PlateauMode::Max, ..ReduceOnPlateau::default() });
}

#[test]
fn what_changes_gradients_survives() {
    use eigenstep::gradient::{
        AdaptiveClip, Centralize, ClipNorm, LossScaling, NormLimit, Normalize, ProjectOut, SignMask,
    };
    macro_rules! all { ($($config:ident),*) => { $(survives($config::default());)* } }
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
    survives(ClipNorm { max_norm: 0.5, norm_type: 1.0, error_if_nonfinite: true });
}

#[test]
fn methods_behind_compression_survive() {
    let config = EfAdagrad::sparse(Adagrad { lr: 0.5, ..Adagrad::default() }, 0.25);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<EfAdagrad>(&text).unwrap(), config);
    let config = ErrorFeedback::matrix(Muon::default());
    let text = serde_json::to_string(&config).unwrap();
    assert!(serde_json::from_str(&text).is_ok_and(|back: ErrorFeedback<_>| back == config));
}

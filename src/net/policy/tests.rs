use super::*;

fn policy(text: &str) -> Result<Policy, PolicyError> {
    Policy::from_json(text, Path::new("policy.json"))
}

fn pin(byte: u8) -> Fingerprint {
    Fingerprint([byte; 32])
}

/// What the default policy takes.
fn offer() -> Offer {
    let noon = serde_json::from_str("\"12:00\"").unwrap();
    Offer {
        clients: 100,
        cohort: 20,
        threshold: 16,
        epsilon_public: Some(1.0),
        epsilon_server: Some(4.0),
        delta: 1e-6,
        protocol: ProtocolName::Oneshot,
        holders: Some(HolderOffer { holders: 5, needed: 4, corrupt: 1 }),
        mechanism: MechanismName::Skellam,
        private: true,
        noise: NoisePlacement::PerClient,
        model: "digits_mlp".into(),
        parameters: 2410,
        algorithm: AlgorithmName::FedAvg,
        epochs: Some(2),
        rounds: 50,
        round: 3,
        authority: pin(1),
        roster: pin(2),
        changed: vec![],
        previous: Some(1000),
        now: 1060,
        local: LocalTime { day: Weekday::Wed, time: noon },
    }
}

fn plain() -> Offer {
    Offer { protocol: ProtocolName::Plain, holders: None, ..offer() }
}

fn unprotected() -> Offer {
    Offer { mechanism: MechanismName::None, private: false, epsilon_public: None, epsilon_server: None, ..offer() }
}

/// The keys that refuse an offer.
fn keys(policy: &Policy, offer: &Offer) -> Vec<Option<&'static str>> {
    policy.check(offer).err().unwrap_or_default().iter().map(Refusal::key).collect()
}

#[test]
fn an_empty_file_is_the_default_and_takes_a_private_round() {
    let policy = policy("{}").unwrap();
    assert_eq!(policy, Policy::default());
    assert_eq!(policy.check(&offer()), Ok(()));
}

#[test]
fn what_is_written_is_read_again() {
    let full = r#"{"$schema": "./policy.schema.json", "$comment": ["a", "b"], "view": "public", "min_cohort": 5, "max_epsilon": 3,
        "max_delta": 1e-7, "protocols": ["plain"], "mechanisms": ["smm-2022", "none"], "noise": "aggregate", "models": ["64-32-10"],
        "max_parameters": 10000, "algorithms": ["fed_sgd"], "max_rounds": 10, "max_epochs": 1, "least_interval_seconds": 60,
        "holders": {"min_holders": 7, "min_needed_share": 0.7, "min_corrupt": 2},
        "authority": "sha256:0101010101010101010101010101010101010101010101010101010101010101", "roster": "any",
        "hours": [{"from": "22:00", "to": "06:00", "days": ["sat"]}]}"#;
    let read = policy(full).unwrap();
    assert_eq!(policy(&serde_json::to_string(&read).unwrap()).unwrap(), read);
    assert_eq!(policy(&serde_json::to_string(&Policy::default()).unwrap()).unwrap(), Policy::default());
    let offer: Offer = serde_json::from_str(&serde_json::to_string(&offer()).unwrap()).unwrap();
    assert_eq!(offer, super::tests::offer());
}

#[test]
fn wrong_values_name_the_file_and_the_key() {
    let cases = [
        (r#"{"min_cohort": 0}"#, "min_cohort"),
        (r#"{"min_cohort": -1}"#, "min_cohort"),
        (r#"{"max_epsilon": 0}"#, "max_epsilon"),
        (r#"{"max_epsilon": -1.5}"#, "max_epsilon"),
        (r#"{"max_epsilon": null}"#, "max_epsilon"),
        (r#"{"max_delta": 1}"#, "max_delta"),
        (r#"{"max_delta": 0}"#, "max_delta"),
        (r#"{"protocols": []}"#, "protocols"),
        (r#"{"protocols": ["masks", "masks"]}"#, "protocols"),
        (r#"{"protocols": ["mask"]}"#, "protocols[0]"),
        (r#"{"mechanisms": ["skelam"]}"#, "mechanisms[0]"),
        (r#"{"models": []}"#, "models"),
        (r#"{"algorithms": ["fedavg"]}"#, "algorithms[0]"),
        (r#"{"max_rounds": 0}"#, "max_rounds"),
        (r#"{"max_epochs": 0}"#, "max_epochs"),
        (r#"{"max_parameters": 0}"#, "max_parameters"),
        (r#"{"least_interval_seconds": 0}"#, "least_interval_seconds"),
        (r#"{"holders": {"min_needed_share": 1.5}}"#, "holders.min_needed_share"),
        (r#"{"holders": {"min_holders": 0}}"#, "holders.min_holders"),
        (r#"{"holders": {"min_holders": 3, "min_corrupt": 3}}"#, "holders.min_corrupt"),
        (r#"{"holders": {"most": 3}}"#, "holders.most"),
        (r#"{"authority": "abc"}"#, "authority"),
        (r#"{"roster": "last"}"#, "roster"),
        (r#"{"hours": [{"from": "25:00", "to": "06:00"}]}"#, "hours[0].from"),
        (r#"{"hours": [{"from": "06:00", "to": "06:00"}]}"#, "hours"),
        (r#"{"noise": "server"}"#, "noise"),
        (r#"{"view": "nobody"}"#, "view"),
    ];
    for (text, key) in cases {
        let message = policy(text).map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with("policy.json at `") && message.contains(&format!("`{key}`")), "{text}: {message}");
    }
    let bad = [
        r#"{"max_epsilon": NaN}"#,
        r#"{"max_epsilon": 1e999}"#,
        "",
        "[]",
        "{} {}",
        r#"{"min_cohort": 2, "min_cohort": 3}"#,
    ];
    for text in bad.into_iter().chain([r#"{"min_cohrt": 2}"#]) {
        let message = policy(text).map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with("policy.json"), "{text}: {message}");
    }
}

#[test]
fn numbers_that_no_json_holds_are_refused_too() {
    for bad in [f64::NAN, f64::INFINITY, -0.0] {
        assert_eq!(Policy { max_epsilon: bad, ..Policy::default() }.wrong().unwrap().0, "max_epsilon");
        assert_eq!(Policy { max_delta: bad, ..Policy::default() }.wrong().unwrap().0, "max_delta");
        let holders = HolderRule { min_needed_share: bad, ..HolderRule::default() };
        assert_eq!(Policy { holders, ..Policy::default() }.wrong().unwrap().0, "holders.min_needed_share");
    }
}

#[test]
fn a_file_is_read_by_its_path_and_a_long_or_absent_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    assert!(matches!(Policy::read(&path), Err(PolicyError::Io { .. })));
    std::fs::write(&path, r#"{"min_cohort": 4}"#).unwrap();
    assert_eq!(Policy::read(&path).unwrap().min_cohort, 4);
    std::fs::write(&path, vec![b' '; MAX_BYTES as usize + 1]).unwrap();
    assert!(matches!(Policy::read(&path), Err(PolicyError::Long { .. })));
}

#[test]
fn without_a_file_plain_and_no_privacy_are_refused_with_the_line_that_allows_them() {
    let default = Policy::default();
    assert_eq!(keys(&default, &plain()), [Some("protocols")]);
    assert_eq!(keys(&default, &unprotected()), [Some("mechanisms")]);
    for offer in [plain(), unprotected(), Offer { mechanism: MechanismName::Quantized, ..unprotected() }] {
        let refusals = default.check(&offer).unwrap_err();
        let lines: Vec<String> = refusals.iter().filter_map(Refusal::line).collect();
        let allowed = policy(&format!("{{{}}}", lines.join(","))).unwrap();
        assert_eq!(allowed.check(&offer), Ok(()), "{lines:?}");
        assert!(refusals[0].to_string().contains(&lines[0]), "{}", refusals[0]);
    }
}

#[test]
fn every_limit_refuses_just_above_it_and_its_line_allows_it() {
    let default = Policy::default();
    let narrow = Policy {
        mechanisms: Some(vec![MechanismName::Skellam]),
        models: Some(vec!["digits_mlp".into()]),
        max_parameters: Some(2410),
        algorithms: Some(vec![AlgorithmName::FedAvg]),
        max_rounds: Some(50),
        max_epochs: Some(2),
        ..default.clone()
    };
    assert_eq!(narrow.check(&offer()), Ok(()));
    let cases: [(&str, Offer); 12] = [
        ("max_epsilon", Offer { epsilon_server: Some(10.000001), ..offer() }),
        ("max_delta", Offer { delta: 1.1e-5, ..offer() }),
        ("noise", Offer { noise: NoisePlacement::Aggregate, ..offer() }),
        ("min_cohort", Offer { threshold: 1, ..offer() }),
        ("protocols", plain()),
        ("mechanisms", Offer { mechanism: MechanismName::Smm, ..offer() }),
        ("mechanisms", unprotected()),
        ("models", Offer { model: "cifar_cnn".into(), ..offer() }),
        ("max_parameters", Offer { parameters: 2411, ..offer() }),
        ("algorithms", Offer { algorithm: AlgorithmName::Scaffold, ..offer() }),
        ("max_rounds", Offer { rounds: 51, ..offer() }),
        ("max_epochs", Offer { epochs: Some(3), ..offer() }),
    ];
    for (key, offer) in cases {
        let refusals = narrow.check(&offer).unwrap_err();
        assert_eq!(keys(&narrow, &offer), [Some(key)], "{refusals:?}");
        let line = refusals[0].line().unwrap();
        let mut file = serde_json::to_value(&narrow).unwrap();
        let added: serde_json::Value = serde_json::from_str(&format!("{{{line}}}")).unwrap();
        file[key] = added[key].clone();
        assert_eq!(policy(&file.to_string()).unwrap().check(&offer), Ok(()), "{line}");
        let text = refusals[0].to_string();
        assert!(text.contains(&format!("`{key}` of policy.json")) && text.contains(&line), "{text}");
    }
}

#[test]
fn the_view_says_whose_epsilon_counts_and_none_is_too_much() {
    let server = Policy { max_epsilon: 2.0, ..Policy::default() };
    let public = Policy { view: View::Public, ..server.clone() };
    assert_eq!(keys(&server, &offer()), [Some("max_epsilon")]);
    assert_eq!(public.check(&offer()), Ok(()));
    let boundless = Offer { epsilon_server: None, ..offer() };
    let refusals = server.check(&boundless).unwrap_err();
    assert!(refusals[0].to_string().contains("without a bound") && refusals[0].line().is_none());
    let infinite = Offer { epsilon_server: Some(f64::INFINITY), ..offer() };
    assert_eq!(keys(&server, &infinite), [Some("max_epsilon")]);
    // NaN is a contradiction, and no number below the limit either.
    assert_eq!(keys(&server, &Offer { epsilon_server: Some(f64::NAN), ..offer() }), [None, Some("max_epsilon")]);
}

#[test]
fn holders_identities_and_time_are_checked() {
    let holders = |holders, needed, corrupt| Some(HolderOffer { holders, needed, corrupt });
    let policy = Policy {
        authority: Some(pin(1)),
        least_interval_seconds: Some(60),
        hours: Some(vec![serde_json::from_str(r#"{"from": "11:00", "to": "13:00"}"#).unwrap()]),
        ..Policy::default()
    };
    assert_eq!(policy.check(&offer()), Ok(()));
    let later = serde_json::from_str(r#"{"day": "wed", "time": "13:00"}"#).unwrap();
    let cases: [(&str, Offer); 8] = [
        ("holders.min_holders", Offer { holders: holders(2, 2, 1), ..offer() }),
        ("holders.min_needed_share", Offer { holders: holders(9, 4, 1), ..offer() }),
        ("holders.min_corrupt", Offer { holders: holders(5, 4, 0), ..offer() }),
        ("authority", Offer { authority: pin(9), ..offer() }),
        ("roster", Offer { changed: vec![7], ..offer() }),
        ("least_interval_seconds", Offer { now: 1059, ..offer() }),
        ("least_interval_seconds", Offer { now: 10, ..offer() }),
        ("hours", Offer { local: later, ..offer() }),
    ];
    for (key, offer) in cases {
        let refusals = policy.check(&offer).unwrap_err();
        assert_eq!(keys(&policy, &offer), [Some(key)], "{refusals:?}");
        assert!(refusals[0].line().is_none());
        assert_eq!(refusals[0].passes(), matches!(key, "least_interval_seconds" | "hours"));
    }
    let pinned = Policy { roster: RosterPin::Pinned(pin(2)), ..Policy::default() };
    assert_eq!(pinned.check(&Offer { changed: vec![7], ..offer() }), Ok(()));
    assert_eq!(keys(&pinned, &Offer { roster: pin(3), ..offer() }), [Some("roster")]);
    let any = Policy { roster: RosterPin::Any, ..Policy::default() };
    assert_eq!(any.check(&Offer { changed: vec![7], roster: pin(3), ..offer() }), Ok(()));
    assert_eq!(policy.check(&Offer { previous: None, ..offer() }), Ok(()));
}

#[test]
fn all_reasons_are_given_at_once() {
    let bad = Offer { threshold: 1, delta: 0.1, noise: NoisePlacement::Aggregate, ..plain() };
    assert_eq!(
        keys(&Policy::default(), &bad),
        [Some("max_delta"), Some("noise"), Some("min_cohort"), Some("protocols")]
    );
}

#[test]
fn plans_that_contradict_themselves_are_refused_whatever_the_policy_says() {
    let open = policy(
        r#"{"protocols": ["plain", "masks", "oneshot", "mphe"], "mechanisms": ["none", "skellam"], "roster": "any", "min_cohort": 1,
        "holders": {"min_holders": 1, "min_needed_share": 0.1, "min_corrupt": 0}}"#,
    );
    let open = open.unwrap();
    let holders = |holders, needed, corrupt| Some(HolderOffer { holders, needed, corrupt });
    let cases = [
        Offer { threshold: 21, ..offer() },
        Offer { cohort: 101, ..offer() },
        Offer { threshold: 0, cohort: 0, ..offer() },
        Offer { round: 0, ..offer() },
        Offer { round: 51, ..offer() },
        Offer { private: false, ..offer() },
        Offer { private: true, epsilon_server: Some(1.0), ..unprotected() },
        Offer { delta: f64::NAN, ..offer() },
        Offer { epsilon_public: Some(-1.0), ..offer() },
        Offer { holders: None, ..offer() },
        Offer { holders: holders(5, 4, 1), ..plain() },
        Offer { holders: holders(5, 6, 1), ..offer() },
        Offer { holders: holders(5, 4, 4), ..offer() },
    ];
    for offer in cases {
        assert_eq!(keys(&open, &offer).first(), Some(&None), "{offer:?}");
    }
    assert_eq!(open.check(&unprotected()), Ok(()));
}

#[test]
fn the_schema_names_every_key() {
    let schema = Policy::json_schema();
    let written = serde_json::to_value(Policy::default()).unwrap();
    for key in written.as_object().unwrap().keys() {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["view"]["enum"][0], "server");
}

#[test]
fn a_long_list_of_clients_is_cut() {
    let clients: Vec<u64> = (0..1000).collect();
    let text = Refusal::KeysChanged { clients, offered: pin(1) }.to_string();
    assert!(text.contains("9 and 990 more"), "{text}");
}

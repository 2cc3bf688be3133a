//! The words of `--schedule`.

use super::{Course, Step};
use crate::cli::account::usage;
use crate::cli::{Exit, Failure};
use crate::config::schedule::{ScheduleConfig, stages};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::stages::{Decay, Stage, Stages};

/// `ROUNDSxNOISE[@COHORT],...`, `weighted:ROUNDSxWEIGHT,...`, `exponential:LAST[:STEPS]`, `linear:LAST[:STEPS]`, or the JSON
/// of a config's `privacy.schedule`.
pub(super) fn parse(text: &str, rounds: Option<u64>, cohort: u64) -> Result<Course, Failure> {
    let needed = || {
        let rounds = rounds.ok_or_else(|| usage("this --schedule needs --rounds, which it deals to its stages"))?;
        if rounds == 0 { Err(usage("--rounds is 0, expected at least 1")) } else { Ok(rounds) }
    };
    let alike =
        |stages: &Stages| stages.all().iter().map(|s| Step { rounds: s.rounds, factor: s.factor, cohort }).collect();
    if text.trim_start().starts_with('{') {
        let config: ScheduleConfig =
            serde_json::from_str(text).map_err(|e| usage(format!("--schedule is no schedule of a config: {e}")))?;
        let own = match &config {
            ScheduleConfig::Stages { stages } => Some(stages.iter().map(|s| u64::from(s.rounds)).sum()),
            ScheduleConfig::Weighted { stages } => Some(stages.iter().map(|s| u64::from(s.rounds)).sum()),
            _ => None,
        };
        let all = own.map_or_else(needed, Ok)?;
        let made = stages(Some(&config), all).map_err(|e| usage(e.to_string()))?;
        return Ok(Course(alike(&made)));
    }
    if let Some((law, rest)) = text.split_once(':') {
        let made = match law.trim() {
            "weighted" => {
                let pairs = rest.split(',').map(pair).collect::<Result<Vec<_>, _>>()?;
                if let Some((_, _, Some(other))) = pairs.iter().find(|(_, _, cohort)| cohort.is_some()) {
                    return Err(usage(format!("--schedule weighted: takes no cohorts, found @{other}")));
                }
                Stages::weighted(&pairs.iter().map(|&(rounds, weight, _)| (rounds, weight)).collect::<Vec<_>>())?
            }
            "exponential" => decay(Decay::Exponential, rest, needed()?)?,
            "linear" => decay(Decay::Linear, rest, needed()?)?,
            other => {
                return Err(usage(format!(
                    "--schedule names the law {other:?}, expected weighted, exponential or linear, or stages ROUNDSxNOISE"
                )));
            }
        };
        return Ok(Course(alike(&made)));
    }
    let mut steps: Vec<Step> = Vec::new();
    for part in text.split(',') {
        let (rounds, factor, own) = pair(part)?;
        // The ranges are those of a run's stages.
        Stages::new([Stage { rounds, factor }])?;
        let cohort = own.unwrap_or(cohort);
        match steps.last_mut() {
            Some(last) if last.factor == factor && last.cohort == cohort => {
                last.rounds = last.rounds.saturating_add(rounds);
            }
            _ => steps.push(Step { rounds, factor, cohort }),
        }
    }
    if steps.len() > Stages::MOST {
        let (expected, found) = (format!("1 to {}", Stages::MOST), steps.len().to_string());
        return Err(Failure::new(Exit::Usage, PrivacyError::OutOfRange { name: "stages", expected, found }));
    }
    Ok(Course(steps))
}

/// `ROUNDSxNUMBER[@COHORT]`.
fn pair(part: &str) -> Result<(u64, f64, Option<u64>), Failure> {
    let wrong = || {
        usage(format!(
            "--schedule has the stage {part:?}, expected ROUNDSxNOISE or ROUNDSxNOISE@COHORT, as in 500x0.8@240"
        ))
    };
    let (stage, cohort) = match part.split_once('@') {
        Some((stage, cohort)) => (stage, Some(cohort.trim().parse::<u64>().map_err(|_| wrong())?)),
        None => (part, None),
    };
    let (rounds, number) = stage.split_once('x').ok_or_else(wrong)?;
    let rounds = rounds.trim().parse::<u64>().map_err(|_| wrong())?;
    Ok((rounds, number.trim().parse::<f64>().map_err(|_| wrong())?, cohort))
}

/// `LAST[:STEPS]`.
fn decay(law: Decay, text: &str, rounds: u64) -> Result<Stages, Failure> {
    let wrong = || {
        usage(format!("--schedule has {text:?} behind its law, expected LAST or LAST:STEPS, as in exponential:0.5:8"))
    };
    let (last, steps) = match text.split_once(':') {
        Some((last, steps)) => (last, steps.trim().parse::<u32>().map_err(|_| wrong())?),
        None => (text, 8),
    };
    let last = last.trim().parse::<f64>().map_err(|_| wrong())?;
    validate::positive("noise of the last stage", last)?;
    Ok(Stages::decaying(rounds, law, last, steps)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(text: &str, rounds: Option<u64>) -> Course {
        parse(text, rounds, 10).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn stages_are_read() {
        let step = |rounds, factor, cohort| Step { rounds, factor, cohort };
        assert_eq!(course("5x1,3x0.5@20, 2x0.5@20", None), Course(vec![step(5, 1.0, 10), step(5, 0.5, 20)]));
        assert_eq!(course("weighted:5x4,1x1", None), Course(vec![step(5, 0.5, 10), step(1, 1.0, 10)]));
        assert_eq!(course("linear:0.5:2", Some(4)), Course(vec![step(2, 1.0, 10), step(2, 0.5, 10)]));
        assert_eq!(course("exponential:0.25", Some(8)).0.len(), 8);
        let json = r#"{"law": "stages", "stages": [{"rounds": 5, "noise": 1.0}, {"rounds": 1, "noise": 0.5}]}"#;
        assert_eq!(course(json, None), course("5x1,1x0.5", None));
        let all = course("5x1,3x0.5,2x0.25", None);
        assert_eq!((all.rounds(), all.first(6).0.len(), all.first(6).rounds(), all.first(99)), (10, 2, 6, all.clone()));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let many = vec!["1x1,1x2"; 17].join(",");
        for (text, says) in [
            ("5", "ROUNDSxNOISE"),
            ("5x", "ROUNDSxNOISE"),
            ("x1", "ROUNDSxNOISE"),
            ("5x1@", "ROUNDSxNOISE"),
            ("0x1", "at least 1"),
            ("5x0", "0.001"),
            ("5xNaN", "0.001"),
            ("5x1,", "ROUNDSxNOISE"),
            ("sinus:3", "sinus"),
            ("linear:0.5", "--rounds"),
            ("weighted:5x1@3", "no cohorts"),
            ("{}", "config"),
            (many.as_str(), "1 to 32"),
        ] {
            let refused = parse(text, None, 10).expect_err(text).to_string();
            assert!(refused.contains(says), "{text}: {refused}");
        }
        assert!(parse("linear:0:4", Some(9), 10).is_err() && parse("linear:0.5:1", Some(9), 10).is_err());
    }
}

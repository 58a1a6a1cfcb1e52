//! What sentinels tell: which server is the primary, who the other sentinels are, and that the
//! primary has changed.

use std::collections::HashMap;

use redis::{Pipeline, RedisError, RedisResult, Value, cmd, from_redis_value};

use super::super::address::HostPort;

/// A primary, as a sentinel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) address: HostPort,
    /// The number of the configuration, which grows with each failover.
    pub(super) epoch: u64,
}

/// Another sentinel, as one tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) address: HostPort,
    pub(super) id: String,
}

/// The answer to [`question`].
pub(super) struct Answer {
    /// `None` if the sentinel does not know the service.
    pub(super) told: Option<Told>,
    /// Empty if the user may not ask for them.
    pub(super) others: Vec<Other>,
}

/// Asks which server is the primary, and who the other sentinels are.
///
/// While a failover is under way, `SENTINEL MASTER` has the epoch of the new primary and still the
/// address of the old one. So the address is asked for by itself, and after the epoch: should the
/// two be answered at different moments, the address is the newer one.
pub(super) fn question(service: &str) -> Pipeline {
    let mut question = Pipeline::with_capacity(3);
    for word in ["MASTER", "GET-MASTER-ADDR-BY-NAME", "SENTINELS"] {
        let mut command = cmd("SENTINEL");
        command.arg(word).arg(service);
        question.add_command(command);
    }
    question
}

type Fields = HashMap<String, String>;

/// Reads the answers to [`question`].
pub(super) fn read(answers: Vec<RedisResult<Value>>) -> RedisResult<Answer> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
    let primary = match next() {
        Err(error) if is_unknown(&error) => None,
        answer => Some(from_redis_value::<Fields>(answer?)?),
    };
    let address: Option<(String, u16)> = from_redis_value(next()?)?;
    let others = next().and_then(|answer| Ok(from_redis_value::<Vec<Fields>>(answer)?));
    let told = match (address, primary) {
        (Some((host, port)), Some(primary)) => Some(Told {
            address: HostPort::new(&host, port),
            epoch: number(&primary, "config-epoch").ok_or_else(no_epoch)?,
        }),
        _ => None,
    };
    let others = others.unwrap_or_default();
    Ok(Answer {
        told,
        others: others.iter().filter_map(other).collect(),
    })
}

fn other(fields: &Fields) -> Option<Other> {
    Some(Other {
        address: HostPort::new(fields.get("ip")?, number(fields, "port")?),
        id: fields.get("runid")?.clone(),
    })
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    fields.get(name)?.parse().ok()
}

fn no_epoch() -> RedisError {
    (
        redis::ErrorKind::UnexpectedReturnType,
        "SENTINEL MASTER has no config-epoch",
    )
        .into()
}

/// Says whether a sentinel does not know the service.
fn is_unknown(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains("No such master"))
}

/// The channel on which sentinels tell that the primary has changed.
pub(super) const SWITCHES: &str = "+switch-master";

/// Reads a message of that channel, `service old-host old-port new-host new-port`: returns the
/// address of the new primary, if it is this service's.
pub(super) fn switched(message: &[Value], service: &str) -> Option<HostPort> {
    let Some(Value::BulkString(payload)) = message.get(1) else {
        return None;
    };
    let rest = std::str::from_utf8(payload).ok()?.strip_prefix(service)?;
    let mut words = rest.strip_prefix(' ')?.split(' ').skip(2);
    let (host, port) = (words.next()?, words.next()?);
    Some(HostPort::new(host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisResult<Value> {
        let text = text.replace(' ', "\r\n") + "\r\n";
        redis::parse_redis_value(text.as_bytes()).and_then(Value::extract_error)
    }

    fn bulk(text: &str) -> String {
        format!("${} {text}", text.len())
    }

    /// As the sentinel that leads a failover answers for a second or more.
    #[test]
    fn the_address_is_the_new_one_while_a_failover_is_under_way() {
        let address = format!("*2 {} {}", bulk("10.0.0.2"), bulk("6380"));
        let primary = format!(
            "%3 {} {} {} {} {} {}",
            bulk("ip"),
            bulk("10.0.0.1"),
            bulk("port"),
            bulk("6379"),
            bulk("config-epoch"),
            bulk("7"),
        );
        let other = format!(
            "*6 {} {} {} {} {} {}",
            bulk("ip"),
            bulk("10.0.0.9"),
            bulk("port"),
            bulk("26379"),
            bulk("runid"),
            bulk("abc"),
        );
        let answers = vec![
            parse(&primary),
            parse(&address),
            parse(&format!("*1 {other}")),
        ];
        let answer = read(answers).expect("an answer");
        let told = Told {
            address: HostPort::new("10.0.0.2", 6380),
            epoch: 7,
        };
        assert_eq!(answer.told, Some(told));
        let other = Other {
            address: HostPort::new("10.0.0.9", 26379),
            id: "abc".to_owned(),
        };
        assert_eq!(answer.others, [other]);
    }

    fn error(text: &str) -> RedisResult<Value> {
        let answer = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
        answer.and_then(Value::extract_error)
    }

    #[test]
    fn an_unknown_service_is_told_from_a_refusal() {
        let unknown = "ERR No such master with that name";
        let answer = read(vec![error(unknown), parse("*-1"), error(unknown)]);
        assert!(answer.expect("an answer").told.is_none());
        let refused = "NOPERM this user has no permissions to run the 'sentinel|master' command";
        let answer = read(vec![error(refused), parse("*-1"), error(refused)]);
        assert!(answer.is_err());
    }

    #[test]
    fn a_message_is_of_one_service() {
        let message = |payload: &str| {
            let channel = Value::BulkString(SWITCHES.into());
            [channel, Value::BulkString(payload.into())]
        };
        let switch = message("a.b 10.0.0.1 6379 ::2 6380");
        let new = HostPort::new("::2", 6380);
        assert_eq!(switched(&switch, "a.b"), Some(new));
        for other in ["a", "b", "a.b 10.0.0.1"] {
            assert_eq!(switched(&switch, other), None, "{other}");
        }
        assert_eq!(switched(&message("a.b 10.0.0.1 6379 ::2"), "a.b"), None);
    }
}

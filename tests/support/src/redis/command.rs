//! One command to a server, without a client.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Sends a command, written as in `redis-cli` and without quotes, and returns the texts and numbers
/// in its answer, in order. An error is a text that begins with its code.
pub(super) fn ask(port: u16, password: Option<&str>, command: &str) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    if let Some(password) = password {
        stream.write_all(format!("AUTH {password}\r\n").as_bytes())?;
        read(&mut answers, &mut Vec::new())?;
    }
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut texts = Vec::new();
    read(&mut answers, &mut texts)?;
    Ok(texts)
}

fn read(answers: &mut impl BufRead, texts: &mut Vec<String>) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at(line.len().min(1));
    let count = rest.parse().unwrap_or(0);
    match kind {
        "*" => (0..count).try_for_each(|_| read(answers, texts))?,
        "$" if rest.starts_with('-') => {}
        "$" => {
            let mut bytes = vec![0; count + 2];
            answers.read_exact(&mut bytes)?;
            bytes.truncate(count);
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        _ => texts.push(rest.to_owned()),
    }
    Ok(())
}

use super::*;

/// Sends one inline command and returns the first bytes of the answer.
fn ask(server: &RedisServer, command: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length])
        .trim_end()
        .to_owned()
}

#[test]
fn data_survives_only_a_restart_that_keeps_it() {
    let Some(mut server) = RedisOptions::default().persistent().start() else {
        return;
    };
    assert_eq!(ask(&server, "SET key value"), "+OK");
    server.restart();
    assert_eq!(ask(&server, "GET key"), "$5\r\nvalue");
    server.restart_empty();
    assert_eq!(ask(&server, "GET key"), "$-1");
}

#[test]
fn a_frozen_server_is_silent() {
    let Some(server) = RedisServer::start_plain() else {
        return;
    };
    assert_eq!(ask(&server, "PING"), "+PONG");
    server.process().freeze();
    assert_eq!(ask(&server, "PING"), "");
    server.process().thaw();
    assert_eq!(ask(&server, "PING"), "+PONG");
}

#[test]
fn users_and_settings_are_the_tests() {
    let options = RedisOptions::default()
        .acl("user default off")
        .acl("user app on >pw ~* &* +@all");
    let Some(server) = options.config("maxmemory 5mb").start() else {
        return;
    };
    assert!(ask(&server, "GET key").starts_with("-NOAUTH"));
    assert_eq!(ask(&server, "AUTH app pw"), "+OK");
    let answer = ask(&server, "AUTH app pw\r\nCONFIG GET maxmemory");
    assert!(answer.ends_with("5242880"), "{answer}");
}

#[test]
fn the_server_ends_with_its_owner() {
    let Some(server) = RedisServer::start_plain() else {
        return;
    };
    let port = server.port();
    drop(server);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

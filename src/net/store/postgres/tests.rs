//! Against a real server, on a socket in a temporary folder; skipped where PostgreSQL is not installed.

mod private;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use self::private::{Server, output};
use super::super::check;
use super::super::{AttemptState, Store};
use super::*;

fn answers(url: &str) -> bool {
    Address::parse(url).unwrap().connect().is_ok()
}

/// A server, or a word about why there is none.
fn server(options: &[&str], port: u16) -> Option<Server> {
    Server::new(options, port).map_err(|why| eprintln!("SKIPPED: no PostgreSQL: {why}")).ok()
}

/// One server for all, since it takes a while to make one.
#[test]
fn a_real_server_does_all_that() {
    let Some(mut server) = server(&[], 5432) else { return };
    does_what_every_store_does(&server);
    what_was_acknowledged_survives_kill_9(&server);
    a_schema_of_somebody_else_is_refused_and_left_alone(&server);
    a_statement_that_fails_undoes_all_of_its_transaction(&server);
    a_writer_that_waits_too_long_says_so(&server);
    a_server_that_crashed_is_found_again_with_all_it_had(&mut server);
}

fn does_what_every_store_does(server: &Server) {
    let mut count = 0;
    check::run(&mut || {
        count += 1;
        let url = server.database(&format!("d{count}"));
        Box::new(move || Arc::new(PostgresStore::open(&url).unwrap()))
    });
}

fn what_was_acknowledged_survives_kill_9(server: &Server) {
    check::survives_kill(&server.database("kill"));
}

fn a_server_that_crashed_is_found_again_with_all_it_had(server: &mut Server) {
    let url = server.database("crash");
    let store = PostgresStore::open(&url).unwrap();
    check::begin(&store, 1, 0);
    store.append(1, 0, &[check::frame(1, b"x")]).unwrap();
    assert_eq!(Store::entries(&store, 1, 0).unwrap().len(), 1);
    server.stop();
    let error = store.append(1, 0, &[check::frame(2, b"x")]).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(Store::entries(&store, 1, 0).is_err());
    server.start();
    store.append(1, 0, &[check::frame(2, b"x")]).unwrap();
    assert_eq!(Store::entries(&store, 1, 0).unwrap().len(), 2);
}

fn a_schema_of_somebody_else_is_refused_and_left_alone(server: &Server) {
    let url = server.database("other");
    let mut client = Address::parse(&url).unwrap().connect().unwrap();
    client.batch_execute("CREATE SCHEMA veilsum; CREATE TABLE veilsum.meta (a int)").unwrap();
    let refused = PostgresStore::open(&url).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
    assert_eq!(client.query("SELECT tablename FROM pg_tables WHERE schemaname = 'veilsum'", &[]).unwrap().len(), 1);
    let absent = PostgresStore::open(&server.url("absent")).map(|_| ()).unwrap_err();
    assert!(absent.to_string().contains("\"absent\" does not exist"), "{absent}");
}

fn a_statement_that_fails_undoes_all_of_its_transaction(server: &Server) {
    let store = PostgresStore::open(&server.database("undo")).unwrap();
    let swallowed = store.write(|sql| {
        tables::META.put(sql, vec!["a".into(), b"1".as_slice().into()])?;
        let _ = sql.query("SELECT no_such_column FROM meta", &[]);
        Ok(())
    });
    assert!(swallowed.is_err(), "a commit that was none");
    assert_eq!(store.meta("a").unwrap(), None);
    store.set_meta("a", b"2").unwrap();
    // Damage is seen here as well.
    check::begin(&store, 1, 0);
    store.append(1, 0, &[check::frame(1, b"x"), check::frame(2, b"y")]).unwrap();
    store.mark(1, 0, AttemptState::Charged).unwrap();
    store.write(|sql| sql.execute("UPDATE entry SET sender = 9 WHERE seq = 1", &[])).unwrap();
    assert!(matches!(Store::entries(&store, 1, 0), Err(StoreError::Corrupt { .. })));
    assert_eq!(Store::check(&store).unwrap().len(), 1);
}

fn a_writer_that_waits_too_long_says_so(server: &Server) {
    let url = server.database("busy");
    let store = PostgresStore::open(&url).unwrap();
    store.writer.lock().unwrap().as_mut().unwrap().client.batch_execute("SET lock_timeout TO '50ms'").unwrap();
    let mut other = Address::parse(&url).unwrap().connect().unwrap();
    other.batch_execute("BEGIN; LOCK TABLE veilsum.meta IN SHARE ROW EXCLUSIVE MODE").unwrap();
    assert!(matches!(store.set_meta("a", b"1"), Err(StoreError::Busy { .. })));
    assert_eq!(store.meta("a").unwrap(), None);
    other.batch_execute("ROLLBACK").unwrap();
    store.set_meta("a", b"1").unwrap();
}

#[test]
fn over_the_network_there_is_tls_with_the_right_certificate() {
    let keys = tempfile::tempdir().unwrap();
    let (cert, key) = (keys.path().join("cert.pem"), keys.path().join("key.pem"));
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let wrong = keys.path().join("other.pem");
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    // The server's own user reads them.
    let postgres = output(Command::new("id").args(["-u", "postgres"])).ok().and_then(|uid| uid.parse().ok());
    for path in [keys.path(), &cert, &key] {
        let _ = std::os::unix::fs::chown(path, postgres, None);
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (cert_file, key_file) =
        (format!("ssl_cert_file={}", cert.display()), format!("ssl_key_file={}", key.display()));
    let options = ["ssl=on", &cert_file, &key_file, "listen_addresses=localhost"];
    let Some(mut server) = server(&options, port) else { return };
    let open = |host: &str, parameters: &str| {
        PostgresStore::open(&format!("postgresql://veilsum@{host}:{port}/postgres?{parameters}")).map(|_| ())
    };
    let right = format!("sslrootcert={}", cert.display());
    open("localhost", &right).unwrap();
    open("localhost", "sslmode=disable").unwrap();
    for (host, parameters) in [("127.0.0.1", right.clone()), ("localhost", format!("sslrootcert={}", wrong.display()))]
    {
        let refused = open(host, &parameters).unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{refused}");
    }
    // `prefer` is no way around it: a server without TLS is refused.
    server.stop();
    server.options[0] = "ssl=off".to_owned();
    server.start();
    let refused = open("localhost", &format!("{right}&sslmode=prefer")).unwrap_err().to_string();
    assert!(refused.contains("does not support TLS"), "{refused}");
}

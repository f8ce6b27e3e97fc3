//! The pages that links of mails lead to, and what they send.

use http::Method;
use modelyard::access::Deployment;
use modelyard::{Server, Service};
use modelyard_access::password::Password;
use modelyard_kernel::Background;
use modelyard_testkit::{TestClient, TestDatabase, on_both_databases};
use serde_json::json;

use crate::support::post_office::{mailed, post_office};
use crate::support::{service, settings, text};

const PASSWORD: &str = "nine correct horses with batteries";
const OTHER: &str = "ten wrong zebras without a battery";

/// What stands between two texts.
fn between<'a>(html: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = html.split_once(before).unwrap_or_else(|| panic!("no {before} in {html}"));
    rest.split_once(after).unwrap().0
}

/// The page, checked; and where its form is sent to.
async fn page(client: &TestClient, path: &str) -> String {
    let page = client.get(path).await.expect(200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let html = page.text();
    assert!(html.contains("width=device-width") && html.contains("<html lang=en>"), "{html}");
    assert!(!html.contains("<style") && !html.contains(" style="), "{html}");
    for handler in ["onclick=", "onload=", "onsubmit=", "oninput="] {
        assert!(!html.contains(handler), "{html}");
    }
    let base = between(&html, "<base href=\"", "\"").trim_start_matches("./").to_owned();
    for (before, kind) in
        [("<script src=\"", "text/javascript"), ("<link rel=stylesheet href=\"", "text/css")]
    {
        let file =
            client.get(&format!("/{base}{}", between(&html, before, "\""))).await.expect(200);
        assert!(file.header("content-type").unwrap().starts_with(kind), "{kind}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.header("cross-origin-resource-policy"), Some("same-origin"));
    }
    let inputs = html.matches("<input ").count();
    assert!(inputs >= 2);
    for input in html.split("<input id=").skip(1) {
        let id = input.split_whitespace().next().unwrap();
        assert!(html.contains(&format!("<label for={id}>")), "{id} has no label: {html}");
    }
    assert_eq!(html.matches("type=password autocomplete=new-password").count(), 2);
    assert!(html.contains("role=status"), "{html}");
    format!("/{base}{}", between(&html, "data-path=\"", "\""))
}

/// Sends what the page's script sends, as a browser does.
async fn send(client: &TestClient, path: &str, body: serde_json::Value) -> u16 {
    let request = client.request(Method::POST, path).header("origin", client.base());
    let request = request.header("sec-fetch-site", "same-origin");
    request.json(&body).send().await.status.as_u16()
}

async fn links_lead_to_where_a_password_is_set(database: TestDatabase, services: Vec<Service>) {
    let background = Background::default();
    let (port, mut mails) = post_office(&background).await;
    let mut settings = settings(&database);
    settings.mail.host = Some("127.0.0.1".to_owned());
    settings.mail.port = Some(port);
    settings.mail.security = "none".to_owned();
    let api = match services.as_slice() {
        [_] => "",
        _ => "/services/a",
    };
    let deployment = Deployment::open(&settings).await.unwrap();
    let users = deployment.access.users();
    users.create_first_admin("ada@example.org", "Ada", Password::new(PASSWORD)).await.unwrap();
    deployment.close().await;
    let server = Server::start(services, settings).await.unwrap();
    let client = TestClient::new(format!("http://{}", server.address()));
    let login = async |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        client.post(&format!("{api}/api/v1/auth/login"), &body).await
    };
    let reset = page(&client, "/reset-password").await;
    let accept = page(&client, "/accept-invitation").await;

    let forgot = json!({"email": "ada@example.org"});
    client.post(&format!("{api}/api/v1/auth/$forgot-password"), &forgot).await.expect(202);
    let token = mailed(&mut mails).await;
    assert_eq!(send(&client, &reset, json!({"token": token, "password": "short"})).await, 400);
    assert_eq!(send(&client, &reset, json!({"token": token, "password": OTHER})).await, 204);
    let token = text(&login("ada@example.org", OTHER).await.expect(200).body["access_token"]);

    let bearer = format!("Bearer {token}");
    let post = async |path: &str, body| {
        let request = client.request(Method::POST, &format!("{api}/api/v1/{path}"));
        request.header("authorization", &bearer).json(&body).send().await
    };
    let bo = json!({"email": "bo@example.org", "name": "Bo"});
    let bo = text(&post("users", bo).await.expect(201).body["id"]);
    post(&format!("users/{bo}/$invite"), json!({})).await.expect(202);
    let token = mailed(&mut mails).await;
    let body = json!({"token": token, "password": PASSWORD, "name": "Bo B."});
    assert_eq!(send(&client, &accept, body).await, 204);
    let logged_in = login("bo@example.org", PASSWORD).await.expect(200).body;
    assert_eq!(logged_in["user"]["name"], "Bo B.");

    // A link is of no use once its user has set another password, or was disabled.
    let forgot = json!({"email": "bo@example.org"});
    for way in ["password", "disable"] {
        client.post(&format!("{api}/api/v1/auth/$forgot-password"), &forgot).await.expect(202);
        let token = mailed(&mut mails).await;
        if way == "password" {
            let body = json!({"old_password": PASSWORD, "new_password": OTHER});
            let own = format!("Bearer {}", text(&logged_in["access_token"]));
            let path = format!("{api}/api/v1/account/$change-password");
            let change = client.request(Method::POST, &path).header("authorization", &own);
            change.json(&body).send().await.expect(204);
        } else {
            post(&format!("users/{bo}/$disable"), json!({})).await.expect(200);
            post(&format!("users/{bo}/$enable"), json!({})).await.expect(200);
        }
        let body = json!({"token": token, "password": "eleven grey llamas on a balcony"});
        assert_eq!(send(&client, &reset, body).await, 400, "{way}");
        login("bo@example.org", OTHER).await.expect(200);
    }
    server.stop().await;
    background.shutdown(std::time::Duration::from_secs(5)).await;
}

on_both_databases! {
    async fn a_link_leads_to_a_page_where_a_password_is_set(database: TestDatabase) {
        links_lead_to_where_a_password_is_set(database, vec![service("a")]).await;
    }

    async fn it_does_where_there_are_several_services(database: TestDatabase) {
        links_lead_to_where_a_password_is_set(database, vec![service("a"), service("b")]).await;
    }
}

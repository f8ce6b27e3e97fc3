//! System: where the service runs, and the pages it serves to people.

mod http;
mod machine;

use modelyard_kernel::{Caller, Clock, Part, Permission, Result, Time};
use serde::Serialize;
use utoipa::ToSchema;

/// May see where the service runs.
pub const READ: Permission = Permission("system:read");

/// The machine and its pages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct System {
    clock: Clock,
}

/// Where the service runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SystemInfo {
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    current_time: Time,
    /// The machine's time zone.
    #[schema(example = "UTC")]
    timezone: String,
    /// `n/a`: clients of the contract expect the key, and no Python runs here.
    python_version: &'static str,
    /// Operating system, release and architecture.
    #[schema(example = "Linux-6.18.44-x86_64")]
    platform: String,
    /// The machine's name.
    hostname: String,
}

/// A page for people, as the contract lists them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AppInfo {
    /// What it is called.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// The path it is at.
    prefix: &'static str,
    /// What it is for.
    description: Option<&'static str>,
    /// Who made it.
    author: Option<&'static str>,
    /// The file it begins with.
    entry: &'static str,
    /// Whether it comes with the program.
    is_package: bool,
}

impl System {
    /// The machine that this runs on.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "system", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Where the service runs.
    ///
    /// # Errors
    /// When the caller may not know.
    pub fn info(&self, caller: &Caller) -> Result<SystemInfo> {
        caller.permit(READ)?;
        Ok(SystemInfo {
            current_time: self.clock.now(),
            timezone: machine::timezone(),
            python_version: "n/a",
            platform: machine::platform(),
            hostname: machine::hostname(),
        })
    }

    /// The pages for people: the one at `/`.
    ///
    /// # Errors
    /// When the caller may not know.
    pub fn apps(caller: &Caller) -> Result<Vec<AppInfo>> {
        caller.permit(READ)?;
        Ok(vec![AppInfo {
            name: "Modelyard",
            version: env!("CARGO_PKG_VERSION"),
            prefix: "/",
            description: Some("The service's card and links"),
            author: None,
            entry: "index.html",
            is_package: true,
        }])
    }
}

#[cfg(test)]
mod tests {
    use ::http::Request;
    use axum::Router;
    use axum::body::Body;
    use http_body_util::BodyExt;
    use modelyard_kernel::Grants;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str) -> Value {
        let clock = Clock::fixed("2026-11-20T08:53:09.233187Z".parse().unwrap());
        let routes: Router = System::new(clock).part().routes.into();
        let caller = Caller::new("t", "default", "s", Grants::All);
        let request = Request::get(path).extension(caller).body(Body::empty()).unwrap();
        let body = routes.oneshot(request).await.unwrap().into_body();
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn the_machine_is_described_in_the_contracts_keys() {
        let info = get("/api/v1/system").await;
        let keys: Vec<&str> = info.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["current_time", "timezone", "python_version", "platform", "hostname"]);
        assert_eq!(info["current_time"], "2026-11-20T08:53:09.233187Z");
        assert!(info.as_object().unwrap().values().all(|it| it.as_str().unwrap() != ""), "{info}");
    }

    #[tokio::test]
    async fn the_page_at_the_root_is_listed_as_its_schema_says() {
        let apps = get("/api/v1/system/apps").await;
        assert_eq!(apps[0]["prefix"], "/");
        let schema = get("/api/v1/system/apps/$schema").await;
        let described = schema["$defs"]["AppInfo"]["properties"].as_object().unwrap();
        let listed = apps[0].as_object().unwrap();
        assert!(described.keys().eq(listed.keys()), "{schema}");
    }
}

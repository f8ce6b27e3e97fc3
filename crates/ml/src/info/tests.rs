use super::*;

fn peer() -> ServiceInfo {
    let mut info = ServiceInfo::new("peer-model", "Peer Model");
    info.version = "1.2.3".to_owned();
    info.description = Some("Contract peer".to_owned());
    info.model_metadata = ModelMetadata {
        author: Some("A. Author".to_owned()),
        author_note: Some("note".to_owned()),
        author_assessed_status: Some(AssessedStatus::Orange),
        contact_email: Some("a@example.com".parse().unwrap()),
        organization: Some("Org".to_owned()),
        organization_logo_url: Some("https://example.com/logo.png".parse().unwrap()),
        citation_info: Some("cite me".to_owned()),
        repository_url: Some("https://github.com/example/model".parse().unwrap()),
        documentation_url: Some("https://example.com/docs".parse().unwrap()),
    };
    info.min_prediction_periods = 1;
    info.max_prediction_periods = 12;
    info.allow_free_additional_continuous_covariates = true;
    info.required_covariates = vec!["rainfall".to_owned(), "mean_temperature".to_owned()];
    info
}

#[test]
fn the_default_wire_form_has_the_first_generations_keys_in_order() {
    assert_eq!(
        serde_json::to_string(&peer()).unwrap(),
        concat!(
            r#"{"id":"peer-model","display_name":"Peer Model","version":"1.2.3","description":"Contract peer","#,
            r#""model_metadata":{"author":"A. Author","author_note":"note","author_assessed_status":"orange","#,
            r#""contact_email":"a@example.com","organization":"Org","#,
            r#""organization_logo_url":"https://example.com/logo.png","citation_info":"cite me","#,
            r#""repository_url":"https://github.com/example/model","documentation_url":"https://example.com/docs"},"#,
            r#""period_type":"monthly","min_prediction_periods":1,"max_prediction_periods":12,"#,
            r#""allow_free_additional_continuous_covariates":true,"#,
            r#""required_covariates":["rainfall","mean_temperature"],"requires_geo":false}"#,
        )
    );
}

#[test]
fn provenance_adds_the_second_generations_keys_where_chapkit_has_them() {
    let info = peer();
    assert_eq!(
        serde_json::to_string(&info.with_provenance(None)).unwrap(),
        concat!(
            r#"{"id":"peer-model","display_name":"Peer Model","version":"1.2.3","description":"Contract peer","#,
            r#""model_metadata":{"author":"A. Author","author_note":"note","author_assessed_status":"orange","#,
            r#""contact_email":"a@example.com","organization":"Org","#,
            r#""organization_logo_url":"https://example.com/logo.png","citation_info":"cite me","#,
            r#""repository_url":"https://github.com/example/model","documentation_url":"https://example.com/docs"},"#,
            r#""git_revision":null,"chapkit_version":"2.4.1","servicekit_version":"3.0.1","#,
            r#""period_type":"monthly","min_prediction_periods":1,"max_prediction_periods":12,"#,
            r#""allow_free_additional_continuous_covariates":true,"#,
            r#""required_covariates":["rainfall","mean_temperature"],"requires_geo":false,"#,
            r#""target":"disease_cases","hpo_search_space":null}"#,
        )
    );
    let told = serde_json::to_value(info.with_provenance(Some("abc"))).unwrap();
    assert_eq!(told["git_revision"], "abc");
}

#[test]
fn unknown_metadata_is_null_on_the_wire_not_absent() {
    let wire = serde_json::to_string(&ServiceInfo::new("m", "M")).unwrap();
    assert_eq!(
        wire,
        concat!(
            r#"{"id":"m","display_name":"M","version":"1.0.0","description":null,"#,
            r#""model_metadata":{"author":null,"author_note":null,"author_assessed_status":null,"#,
            r#""contact_email":null,"organization":null,"organization_logo_url":null,"citation_info":null,"#,
            r#""repository_url":null,"documentation_url":null},"#,
            r#""period_type":"monthly","min_prediction_periods":0,"max_prediction_periods":100,"#,
            r#""allow_free_additional_continuous_covariates":false,"required_covariates":[],"requires_geo":false}"#,
        )
    );
}

#[test]
fn a_service_id_is_groups_of_letters_and_digits_joined_by_single_hyphens() {
    for good in ["a", "a1", "dengue-baseline", "a-1-b"] {
        assert_eq!(good.parse::<ServiceId>().unwrap().as_str(), good);
    }
    for bad in ["", "1a", "A", "a_b", "a--b", "-a", "a-", "a b", "å", "a\n"] {
        assert!(bad.parse::<ServiceId>().is_err(), "{bad:?}");
    }
}

#[test]
fn any_name_gives_a_service_id() {
    for (name, slug) in [
        ("ewars_template", "ewars-template"),
        ("  Torch Deep (CHAP) ", "torch-deep-chap"),
        ("3rd model", "mlproject-3rd-model"),
        ("---", "mlproject"),
        ("Modèle", "mod-le"),
    ] {
        assert_eq!(slugify(name).as_str(), slug);
        assert!(slugify(name).as_str().parse::<ServiceId>().is_ok());
    }
}

#[test]
fn addresses_are_normalised_as_the_peer_does() {
    let url = |text: &str| text.parse::<HttpUrl>().map(|url| url.to_string());
    assert_eq!(url("https://example.com").unwrap(), "https://example.com/");
    assert_eq!(url("HTTP://Example.COM:80/A b").unwrap(), "http://example.com/A%20b");
    for bad in ["", "example.com", "ftp://example.com", "https://", "mailto:a@b.c"] {
        assert!(url(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_email_has_a_local_part_and_a_named_domain() {
    let email = |text: &str| text.parse::<Email>().map(|email| email.as_str().to_owned());
    assert_eq!(email("Knut.Rand@DHIS2.org").unwrap(), "Knut.Rand@dhis2.org");
    for bad in [
        "", "a", "a@", "@b.c", "a@b", "a b@c.d", "a..b@c.d", "a@-b.c", "a@b..c", "a@1.2", "a@b@c.d",
    ] {
        assert!(email(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_horizon_that_ends_before_it_begins_is_refused() {
    let mut info = ServiceInfo::new("m", "M");
    info.min_prediction_periods = 101;
    assert_eq!(info.check(), Err(InfoError::Horizon { min: 101, max: 100 }));
}

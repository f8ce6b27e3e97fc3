//! Tokens that are ours, and all the others.

use modelyard_kernel::Grants;
use modelyard_kernel::db::query;
use modelyard_testkit::{TENANT, TestDatabase, on_both_databases};
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

const USER: &str = "01M7W2GJGNPH03KT3S3W4GRB46";
const SESSION: &str = "01M7W2GJGNPH03KT3S3W4GRB47";

fn secret(byte: u8) -> Secret {
    Secret::read(&STANDARD.encode([byte; 32])).unwrap()
}

fn tokens(database: &TestDatabase) -> Tokens {
    let (db, clock) = (database.db.clone(), database.clock.clone());
    Tokens::new(db, clock, secret(7), TENANT, Options::default())
}

fn ulid(text: &str) -> Ulid {
    Ulid::read(text).unwrap()
}

async fn good(tokens: &Tokens) -> String {
    tokens.signer().await.unwrap().sign(TENANT, ulid(USER), ulid(SESSION))
}

fn caller() -> Caller {
    Caller::new("admin", TENANT, DEPLOYMENT, Grants::All)
}

fn encode(it: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(it)
}

fn sign(pair: &Ed25519KeyPair, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = encode(pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A document with some members changed; null takes one away.
fn with(document: &Value, changes: Value) -> String {
    let mut changed = document.clone();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => changed.as_object_mut().unwrap().remove(key),
            value => changed.as_object_mut().unwrap().insert(key.clone(), value.clone()),
        };
    }
    changed.to_string()
}

on_both_databases! {
    async fn a_token_says_whose_it_is(database: TestDatabase) {
        let tokens = tokens(&database);
        let token = good(&tokens).await;
        let claims = tokens.verify(&token).await.unwrap().unwrap();
        assert_eq!((claims.sub, claims.sid), (ulid(USER), ulid(SESSION)));
        assert_eq!((claims.tid.as_str(), claims.exp - claims.iat), (TENANT, 600));
        // Another process of the deployment reads it as well.
        assert_eq!(self::tokens(&database).verify(&token).await.unwrap(), Ok(claims));
    }

    async fn attacks_are_refused(database: TestDatabase) {
        use Refused::{Claims, Form, Header, Key, Party, Signature, Time};

        let tokens = tokens(&database);
        let token = good(&tokens).await;
        let key = tokens.signer().await.unwrap().key;
        let (kid, pair) = (key.kid.as_str(), &*key.pair);
        let other = super::pair(
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref(),
        )
        .unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let [head, body, signature] = parts.as_slice() else { panic!("three parts") };
        let decode = |it: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(it).unwrap()).unwrap()
        };
        let (header, payload) = (decode(head), decode(body));
        let (h, p) = (header.to_string(), payload.to_string());
        let now = payload["iat"].as_i64().unwrap();
        assert!(tokens.verify(&sign(pair, &h, &p)).await.unwrap().is_ok());

        let heads = |changes: Value| sign(pair, &with(&header, changes), &p);
        let says = |changes: Value| sign(pair, &h, &with(&payload, changes));
        let unsigned = |alg: &str, signature: &str| {
            let head = with(&header, json!({"alg": alg}));
            format!("{}.{body}.{signature}", encode(head))
        };
        // The public key, which everybody has, as the secret of another algorithm.
        let confused = |alg: &str| {
            let signed = format!("{}.{body}", encode(with(&header, json!({"alg": alg}))));
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.public());
            format!("{signed}.{}", encode(hmac::sign(&key, signed.as_bytes())))
        };
        let flipped = |text: &str, at: usize| {
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            bytes[at] ^= 1;
            encode(bytes)
        };
        let duplicate = |name: &str, first: &str| {
            p.replacen('{', &format!("{{\"{name}\":{first},"), 1)
        };
        let spelled = |text: &str, from: &str, to: &str| {
            assert!(text.contains(from));
            sign(pair, &h, &text.replace(from, to))
        };
        // S of the signature, with the order of the group added, is the same number there.
        let malleable = {
            let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let order: [u8; 32] = [
                0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
                0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            ];
            let mut carry = 0_u16;
            for (byte, add) in bytes[32..].iter_mut().zip(order) {
                carry += u16::from(*byte) + u16::from(add);
                *byte = u8::try_from(carry & 0xff).unwrap();
                carry >>= 8;
            }
            encode(bytes)
        };
        // The last character of 64 bytes has four bits that say nothing.
        let loose = {
            const ALPHABET: &[u8] =
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let last = *signature.as_bytes().last().unwrap();
            let at = ALPHABET.iter().position(|it| *it == last).unwrap();
            format!("{}{}", &signature[..signature.len() - 1], char::from(ALPHABET[at | 1]))
        };
        let huge = "x".repeat(5000);
        let list = format!(
            "[{}]",
            payload.as_object().unwrap().values().map(ToString::to_string).collect::<Vec<_>>().join(",")
        );

        let attacks: Vec<(&str, String, Refused)> = vec![
            // Not the form.
            ("nothing", String::new(), Form),
            ("dots", "..".to_owned(), Header),
            ("one part", "abc".to_owned(), Form),
            ("two parts", format!("{head}.{body}"), Form),
            ("four parts", format!("{token}.{signature}"), Form),
            ("five parts, as encrypted ones have", format!("{token}.a.b"), Form),
            ("no header", format!(".{body}.{signature}"), Header),
            ("no payload", format!("{head}..{signature}"), Signature),
            ("padding", format!("{head}.{body}.{signature}=="), Form),
            ("padding of the payload", format!("{head}.{body}=.{signature}"), Form),
            ("the other alphabet", format!("{head}.{body}.{}", "+".repeat(86)), Form),
            ("bits that say nothing", format!("{head}.{body}.{loose}"), Form),
            ("a space before", format!(" {token}"), Form),
            ("a space after", format!("{token} "), Form),
            ("a line break", format!("{token}\n"), Form),
            ("a zero character", format!("{token}\0"), Form),
            ("not ASCII", format!("{token}é"), Form),
            ("too large", sign(pair, &h, &with(&payload, json!({"tid": huge}))), Form),
            ("large without end", "a".repeat(1 << 20), Form),
            ("truncated by one", token[..token.len() - 1].to_owned(), Form),
            ("truncated by a byte", format!("{head}.{body}.{}", encode([1; 63])), Signature),
            ("JSON, as the other serialization has it", json!({"payload": body, "signatures": [{"protected": head, "signature": signature}]}).to_string(), Form),
            ("with the scheme before it", format!("Bearer {token}"), Form),
            ("nested", sign(pair, &h, &token), Claims),
            ("nested and said to be", heads(json!({"cty": "JWT"})), Header),
            // Another algorithm.
            ("alg none", unsigned("none", ""), Header),
            ("alg None", unsigned("None", ""), Header),
            ("alg NONE with a signature", unsigned("NONE", signature), Header),
            ("alg nOnE", unsigned("nOnE", ""), Header),
            ("alg empty", unsigned("", ""), Header),
            ("no signature", format!("{head}.{body}."), Signature),
            ("alg missing", heads(json!({"alg": null})), Header),
            ("alg a number", heads(json!({"alg": 1})), Header),
            ("alg a list", heads(json!({"alg": ["EdDSA"]})), Header),
            ("alg in lower case", heads(json!({"alg": "eddsa"})), Header),
            ("alg Ed25519", heads(json!({"alg": "Ed25519"})), Header),
            ("alg with a space", heads(json!({"alg": "EdDSA "})), Header),
            ("HS256 with the public key", confused("HS256"), Header),
            ("HS512 with the public key", confused("HS512"), Header),
            ("HMAC and said to be EdDSA", confused("EdDSA"), Signature),
            ("RS256", heads(json!({"alg": "RS256"})), Header),
            ("ES256", heads(json!({"alg": "ES256"})), Header),
            ("PS256", heads(json!({"alg": "PS256"})), Header),
            // Another type, other members of the header.
            ("typ JWT", heads(json!({"typ": "JWT"})), Header),
            ("typ in capitals", heads(json!({"typ": "AT+JWT"})), Header),
            ("typ in full", heads(json!({"typ": "application/at+jwt"})), Header),
            ("typ missing", heads(json!({"typ": null})), Header),
            ("a key in the header", heads(json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": encode(other.public_key())}})), Header),
            ("the address of a key", heads(json!({"jku": "https://evil.example/jwks.json"})), Header),
            ("the address of a certificate", heads(json!({"x5u": "https://evil.example/c.pem"})), Header),
            ("a certificate", heads(json!({"x5c": ["MIIB"]})), Header),
            ("critical members", heads(json!({"crit": ["exp"]})), Header),
            ("unencoded payload", heads(json!({"b64": false, "crit": ["b64"]})), Header),
            ("compressed", heads(json!({"zip": "DEF"})), Header),
            ("two of alg", sign(pair, &h.replacen('{', "{\"alg\":\"none\",", 1), &p), Header),
            ("a header that is a list", sign(pair, &format!("[\"EdDSA\",\"at+jwt\",\"{kid}\"]"), &p), Header),
            ("a header that is a text", sign(pair, "\"EdDSA\"", &p), Header),
            ("something after the header", sign(pair, &format!("{h}{{}}"), &p), Header),
            // Another key.
            ("kid missing", heads(json!({"kid": null})), Header),
            ("kid unknown", heads(json!({"kid": SESSION})), Key),
            ("kid empty", heads(json!({"kid": ""})), Key),
            ("kid a path", heads(json!({"kid": "../../dev/null"})), Key),
            ("kid a statement", heads(json!({"kid": format!("{kid}' OR '1'='1")})), Key),
            ("kid in lower case", heads(json!({"kid": kid.to_lowercase()})), Key),
            ("kid a number", heads(json!({"kid": 1})), Header),
            ("another key's signature", sign(&other, &h, &p), Signature),
            // Another signature.
            ("a bit of the signature", format!("{head}.{body}.{}", flipped(signature, 0)), Signature),
            ("the last bit of it", format!("{head}.{body}.{}", flipped(signature, 63)), Signature),
            ("its other spelling", format!("{head}.{body}.{malleable}"), Signature),
            ("zeros", format!("{head}.{body}.{}", encode([0; 64])), Signature),
            ("ones", format!("{head}.{body}.{}", encode([0xff; 64])), Signature),
            ("a longer one", format!("{head}.{body}.{}", encode([0; 65])), Signature),
            ("a bit of the payload", format!("{head}.{}.{signature}", flipped(body, 20)), Signature),
            ("another payload", format!("{head}.{}.{signature}", encode(with(&payload, json!({"sub": SESSION})))), Signature),
            ("the payload of another time", format!("{head}.{}.{signature}", encode(with(&payload, json!({"exp": now + 99_999})))), Signature),
            ("parts exchanged", format!("{body}.{head}.{signature}"), Header),
            // Others' tokens.
            ("iss of somebody else", says(json!({"iss": "https://evil.example"})), Party),
            ("iss nearly ours", says(json!({"iss": "modelyard/"})), Party),
            ("iss in capitals", says(json!({"iss": "Modelyard"})), Party),
            ("iss missing", says(json!({"iss": null})), Claims),
            ("aud of somebody else", says(json!({"aud": "other"})), Party),
            ("aud a list with ours", says(json!({"aud": ["modelyard", "other"]})), Claims),
            ("aud empty", says(json!({"aud": ""})), Party),
            ("aud missing", says(json!({"aud": null})), Claims),
            // Other times.
            ("ended", says(json!({"iat": now - 700, "exp": now - 31})), Time),
            ("ended as long ago as clocks are apart", says(json!({"iat": now - 700, "exp": now - 30})), Time),
            ("made in the future", says(json!({"iat": now + 31, "exp": now + 700})), Time),
            ("ends before it is made", says(json!({"exp": now - 1})), Time),
            ("exp zero", says(json!({"exp": 0})), Time),
            ("exp negative", says(json!({"exp": -1})), Time),
            ("exp missing", says(json!({"exp": null})), Claims),
            ("exp a text", says(json!({"exp": (now + 600).to_string()})), Claims),
            ("exp a fraction", says(json!({"exp": 1e18})), Claims),
            ("exp too large", spelled(&p, &format!("\"exp\":{}", now + 600), "\"exp\":99999999999999999999"), Claims),
            ("exp without end", spelled(&p, &format!("\"exp\":{}", now + 600), "\"exp\":1e999"), Claims),
            ("iat missing", says(json!({"iat": null})), Claims),
            ("nbf in the future", says(json!({"nbf": now + 600})), Claims),
            ("nbf at all", says(json!({"nbf": now - 600})), Claims),
            // Other claims.
            ("sub missing", says(json!({"sub": null})), Claims),
            ("sub a name", says(json!({"sub": "admin"})), Claims),
            ("sub a number", says(json!({"sub": 1})), Claims),
            ("sub a list", says(json!({"sub": [USER]})), Claims),
            ("sid missing", says(json!({"sid": null})), Claims),
            ("tid missing", says(json!({"tid": null})), Claims),
            ("tid an object", says(json!({"tid": {"$ne": ""}})), Claims),
            ("jti missing", says(json!({"jti": null})), Claims),
            ("a role", says(json!({"role": "system-admin"})), Claims),
            ("a scope", says(json!({"scope": "*"})), Claims),
            ("two of sub", sign(pair, &h, &duplicate("sub", &format!("\"{SESSION}\""))), Claims),
            ("two of exp", sign(pair, &h, &duplicate("exp", "1")), Claims),
            ("two of aud", sign(pair, &h, &duplicate("aud", "\"other\"")), Claims),
            ("claims that are a list", sign(pair, &h, &list), Claims),
            ("claims that are nothing", sign(pair, &h, "null"), Claims),
            ("no claims", sign(pair, &h, "{}"), Claims),
            ("claims that are no JSON", sign(pair, &h, "iss=modelyard"), Claims),
            ("claims with a comma too many", sign(pair, &h, &p.replace('}', ",}")), Claims),
            ("something after the claims", sign(pair, &h, &format!("{p}{p}")), Claims),
            ("claims deep inside", sign(pair, &h, &"[".repeat(1000)), Claims),
            ("claims behind a mark", sign(pair, &h, &format!("\u{feff}{p}")), Claims),
        ];
        assert!(attacks.len() >= 100, "{}", attacks.len());
        let mut wrong = Vec::new();
        for (name, attack, expected) in attacks {
            let found = tokens.verify(&attack).await.unwrap();
            if found.as_ref().err() != Some(&expected) {
                wrong.push(format!("{name}: {found:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    async fn clocks_may_be_half_a_minute_apart(database: TestDatabase) {
        let tokens = tokens(&database);
        let token = good(&tokens).await;
        database.clock.advance(Duration::from_secs(600 + 29));
        assert!(tokens.verify(&token).await.unwrap().is_ok());
        database.clock.advance(Duration::from_secs(1));
        assert_eq!(tokens.verify(&token).await.unwrap(), Err(Refused::Time));
    }

    async fn a_new_key_signs_and_the_old_one_is_believed_until_its_tokens_ended(database: TestDatabase) {
        let (here, there) = (tokens(&database), tokens(&database));
        let old = good(&here).await;
        let old_kid = here.signer().await.unwrap().key.kid;
        there.verify(&old).await.unwrap().unwrap();
        assert_eq!(there.signer().await.unwrap().key.kid, old_kid);

        here.rotate(&caller()).await.unwrap();
        let new = good(&here).await;
        assert_ne!(here.signer().await.unwrap().key.kid, old_kid);
        database.clock.advance(LOOKED);
        for tokens in [&here, &there] {
            tokens.verify(&old).await.unwrap().unwrap();
            tokens.verify(&new).await.unwrap().unwrap();
        }
        let jwks = serde_json::to_value(here.jwks().await.unwrap()).unwrap();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
        assert_eq!(jwks["keys"][1]["kid"], old_kid);

        database.clock.advance(Duration::from_secs(15 * 60));
        assert_eq!(here.verify(&old).await.unwrap(), Err(Refused::Key));
        let jwks = serde_json::to_value(here.jwks().await.unwrap()).unwrap();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);

        let nobody = Caller::new("a", TENANT, DEPLOYMENT, Grants::none());
        assert_eq!(here.rotate(&nobody).await.unwrap_err().code(), "permission_denied");
    }

    async fn a_key_signs_for_ninety_days(database: TestDatabase) {
        let tokens = tokens(&database);
        let first = tokens.signer().await.unwrap().key.kid;
        database.clock.advance(Duration::from_secs(89 * 24 * 60 * 60));
        assert_eq!(tokens.signer().await.unwrap().key.kid, first);
        let last = good(&tokens).await;
        database.clock.advance(Duration::from_secs(24 * 60 * 60));
        assert_ne!(tokens.signer().await.unwrap().key.kid, first);
        // It has ended by now, and so has its key's time soon.
        assert_eq!(tokens.verify(&last).await.unwrap(), Err(Refused::Time));
    }

    async fn processes_that_start_together_make_one_key(database: TestDatabase) {
        let all: Vec<Tokens> = (0..5).map(|_| tokens(&database)).collect();
        let signers = futures_util::future::join_all(all.iter().map(Tokens::signer)).await;
        let kids: Vec<String> = signers.into_iter().map(|it| it.unwrap().key.kid).collect();
        assert!(kids.iter().all(|it| *it == kids[0]), "{kids:?}");
    }

    async fn whoever_has_only_the_database_signs_nothing(database: TestDatabase) {
        let here = tokens(&database);
        let token = good(&here).await;
        // With another secret of the deployment nothing is opened.
        let (db, clock) = (database.db.clone(), database.clock.clone());
        let stranger = Tokens::new(db, clock, secret(8), TENANT, Options::default());
        assert_eq!(stranger.verify(&token).await.unwrap_err().code(), "internal");
        // A public key that was put there is noticed.
        let mut conn = database.db.conn().await.unwrap();
        let forged = query("UPDATE signing_keys SET public_key = $1").bind(vec![7_u8; 32]);
        forged.execute(&mut conn).await.unwrap();
        assert!(tokens(&database).verify(&token).await.is_err());
    }
}

//! Goal: tokens of the original verify here and ours verify there; everything else is refused.
//! Method: texts minted by an independent HS256 implementation, then one defect at a time.
#![allow(clippy::unwrap_used)]

use super::*;

const NOW: u64 = 1_900_000_000;
const EXP: u64 = 2_000_000_000;
const VFID: &str = "user:11111111-2222-3333-4444-555555555555/aabbccddeeff00112233445566778899";

// Minted with Python's hmac, hashlib and json modules, key "secret".
const DOWNLOAD: &str = "\
    eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcCI6ImRvd25sb2FkIiwidm9sdW1lIjoidm9sdW1lMSIsInZma\
    WQiOiJ1c2VyOjExMTExMTExLTIyMjItMzMzMy00NDQ0LTU1NTU1NTU1NTU1NS9hYWJiY2NkZGVlZmYwMDExMjIzMzQ\
    0NTU2Njc3ODg5OSIsInJlbHBhdGgiOiJcdWQ1NWNcdWFlMDAvYSBiLnR4dCIsImV4cCI6MjAwMDAwMDAwMH0.grNei\
    eNlTOpCEgQBF-hK_IqLVcWQQNN-OOFtBIzvhgE";
const UPLOAD: &str = "\
    eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcCI6InVwbG9hZCIsInZvbHVtZSI6InZvbHVtZTEiLCJ2ZmlkI\
    joidXNlcjoxMTExMTExMS0yMjIyLTMzMzMtNDQ0NC01NTU1NTU1NTU1NTUvYWFiYmNjZGRlZWZmMDAxMTIyMzM0NDU\
    1NjY3Nzg4OTkiLCJyZWxwYXRoIjoiZC91cC5iaW4iLCJzaXplIjo1LCJzZXNzaW9uIjoiMDAxMTIyMzM0NDU1NjY3N\
    zg4OTlhYWJiY2NkZGVlZmYiLCJleHAiOjIwMDAwMDAwMDB9.PMCNfHE7-9uSdreOBf2zX29d4ablQLlkrCI9tB9JOl\
    I";
const ARCHIVE: &str = "\
    eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJvcGVyYXRpb24iOiJkb3dubG9hZCIsInZvbHVtZSI6InZvbHVtZ\
    TEiLCJ2aXJ0dWFsX2ZvbGRlcl9pZCI6InVzZXI6MTExMTExMTEtMjIyMi0zMzMzLTQ0NDQtNTU1NTU1NTU1NTU1L2F\
    hYmJjY2RkZWVmZjAwMTEyMjMzNDQ1NTY2Nzc4ODk5IiwiZmlsZXMiOlsiYSIsImIvYyJdLCJmaWxlbmFtZSI6bnVsb\
    CwiZXhwIjoyMDAwMDAwMDAwfQ.vkTrXMQxuhOGkJJth4rKfcmbbAXt3Q2nrxo0_p4yQPo";

fn secret() -> Secret {
    Secret::new("secret")
}

fn vfid() -> VFolderId {
    VFolderId::parse(VFID).unwrap()
}

fn download() -> DownloadClaims {
    DownloadClaims {
        volume: "volume1".to_owned(),
        vfid: vfid(),
        relpath: RelPath::parse("한글/a b.txt").unwrap(),
        exp: EXP,
        unmanaged_path: None,
    }
}

fn upload() -> UploadClaims {
    UploadClaims {
        volume: "volume1".to_owned(),
        vfid: vfid(),
        relpath: RelPath::parse("d/up.bin").unwrap(),
        size: 5,
        session: SessionId::parse("00112233445566778899aabbccddeeff").unwrap(),
        exp: EXP,
    }
}

fn archive() -> ArchiveClaims {
    ArchiveClaims {
        volume: "volume1".to_owned(),
        vfid: vfid(),
        files: vec!["a".to_owned(), "b/c".to_owned()],
        filename: None,
        exp: EXP,
    }
}

#[test]
fn minted_text_is_the_originals() {
    assert_eq!(download().mint(&secret()), DOWNLOAD);
    assert_eq!(upload().mint(&secret()), UPLOAD);
    assert_eq!(archive().mint(&secret()), ARCHIVE);
}

#[test]
fn tokens_of_the_original_verify() {
    assert_eq!(
        DownloadClaims::verify(&secret(), DOWNLOAD, NOW),
        Ok(download())
    );
    assert_eq!(UploadClaims::verify(&secret(), UPLOAD, NOW), Ok(upload()));
    assert_eq!(
        ArchiveClaims::verify(&secret(), ARCHIVE, NOW),
        Ok(archive())
    );
    let unmanaged = DownloadClaims {
        unmanaged_path: Some("/srv".to_owned()),
        ..download()
    };
    let text = unmanaged.mint(&secret());
    assert_eq!(DownloadClaims::verify(&secret(), &text, NOW), Ok(unmanaged));
}

#[test]
fn tokens_of_one_kind_are_none_of_another() {
    for wrong in [UPLOAD, ARCHIVE] {
        let refused = DownloadClaims::verify(&secret(), wrong, NOW);
        assert!(matches!(refused, Err(TokenError::Claims(_))), "{refused:?}");
    }
    for wrong in [DOWNLOAD, ARCHIVE] {
        let refused = UploadClaims::verify(&secret(), wrong, NOW);
        assert!(matches!(refused, Err(TokenError::Claims(_))), "{refused:?}");
    }
    for wrong in [DOWNLOAD, UPLOAD] {
        let refused = ArchiveClaims::verify(&secret(), wrong, NOW);
        assert!(matches!(refused, Err(TokenError::Claims(_))), "{refused:?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn signatures_times_and_shapes_are_checked() {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let malformed = |text: &str| TokenError::Malformed(text.to_owned());
    let parts: Vec<&str> = DOWNLOAD.split('.').collect();
    let with_header = |header: &str| format!("{}.{}.{}", encode(header), parts[1], parts[2]);
    for (token, want) in [
        (String::new(), malformed("Not enough segments")),
        ("a.b".to_owned(), malformed("Not enough segments")),
        (
            format!("*.{}.{}", parts[1], parts[2]),
            malformed("Invalid header padding"),
        ),
        (
            format!("{}.*.{}", parts[0], parts[2]),
            malformed("Invalid payload padding"),
        ),
        (
            format!("{}.{}.*", parts[0], parts[1]),
            malformed("Invalid crypto padding"),
        ),
        (
            format!("{DOWNLOAD}.x"),
            malformed("Invalid payload padding"),
        ),
        (
            with_header("nope"),
            malformed("Invalid header string: not JSON"),
        ),
        (
            with_header("[]"),
            malformed("Invalid header string: must be a json object"),
        ),
        (with_header(r#"{"alg":"none"}"#), TokenError::WrongAlgorithm),
        (
            with_header(r#"{"alg":"HS512"}"#),
            TokenError::WrongAlgorithm,
        ),
        (with_header(r#"{"typ":"JWT"}"#), TokenError::WrongAlgorithm),
        (
            with_header(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
            malformed("Unsupported critical extension"),
        ),
        (
            with_header(r#"{"typ":"JWT","alg":"HS256"}"#),
            TokenError::BadSignature,
        ),
        (
            format!("{}.{}.", parts[0], parts[1]),
            TokenError::BadSignature,
        ),
        (
            format!("{}.{}.{}", parts[0], encode("{}"), parts[2]),
            TokenError::BadSignature,
        ),
    ] {
        assert_eq!(
            DownloadClaims::verify(&secret(), &token, NOW),
            Err(want),
            "{token}"
        );
    }
    let other = Secret::new("other");
    assert_eq!(
        DownloadClaims::verify(&other, DOWNLOAD, NOW),
        Err(TokenError::BadSignature)
    );
    assert_eq!(
        DownloadClaims::verify(&secret(), DOWNLOAD, EXP),
        Err(TokenError::Expired)
    );
    assert!(DownloadClaims::verify(&secret(), DOWNLOAD, EXP - 1).is_ok());
}

#[test]
fn headers_of_other_writers_are_fine() {
    let claims = json!({"op": "download", "volume": "v", "vfid": VFID, "relpath": "a", "exp": EXP});
    let token = jws::sign(&claims, &secret());
    assert!(DownloadClaims::verify(&secret(), &token, NOW).is_ok());
    // Padding is not minted but accepted.
    assert!(DownloadClaims::verify(&secret(), &format!("{token}="), NOW).is_ok());
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn claims_are_checked_one_by_one() {
    let base = json!({
        "op": "upload", "volume": "v", "vfid": VFID, "relpath": "a", "size": 5,
        "session": "00112233445566778899aabbccddeeff", "exp": EXP,
    });
    let bad = |claim: &str, text: &str| TokenError::Claims(json!({claim: text}));
    let not_whole = |name: &str| TokenError::Malformed(format!("{name} must be an integer."));
    for (claim, value, want) in [
        (
            "op",
            json!("x"),
            Some(bad("op", "value is not exactly 'upload'")),
        ),
        (
            "volume",
            json!(""),
            Some(bad("volume", "blank value is not allowed")),
        ),
        (
            "vfid",
            json!("zz"),
            Some(bad("vfid", "cannot convert value to UUID")),
        ),
        (
            "relpath",
            json!("/etc"),
            Some(bad(
                "relpath",
                "expected relative path but the value is absolute",
            )),
        ),
        ("size", json!("x"), Some(bad("size", "value is not int"))),
        ("size", json!("5"), None),
        ("size", json!(-1), None),
        (
            "session",
            json!("../x"),
            Some(bad("session", "value is not a session identifier")),
        ),
        (
            "session",
            json!(""),
            Some(bad("session", "blank value is not allowed")),
        ),
        (
            "exp",
            json!("soon"),
            Some(not_whole("Expiration Time claim (exp)")),
        ),
        (
            "exp",
            json!(1.5),
            Some(not_whole("Expiration Time claim (exp)")),
        ),
        (
            "exp",
            json!(null),
            Some(not_whole("Expiration Time claim (exp)")),
        ),
        ("exp", json!(-1), Some(TokenError::Expired)),
        ("nbf", json!(NOW + 1), Some(TokenError::NotYetValid)),
        ("iat", json!(NOW + 1), Some(TokenError::NotYetValid)),
        ("nbf", json!(NOW), None),
        ("iat", json!("x"), Some(not_whole("Issued At claim (iat)"))),
        ("aud", json!("me"), Some(TokenError::Audience)),
        ("aud", json!(null), None),
        ("iss", json!("anyone"), None),
    ] {
        let mut claims = base.clone();
        claims[claim] = value.clone();
        let got = UploadClaims::verify(&secret(), &jws::sign(&claims, &secret()), NOW).err();
        assert_eq!(got, want, "{claim} = {value}");
    }
    let mut claims = base;
    claims.as_object_mut().unwrap().shift_remove("exp");
    let token = jws::sign(&claims, &secret());
    assert_eq!(
        UploadClaims::verify(&secret(), &token, NOW),
        Err(TokenError::MissingExpiry)
    );
}

#[test]
fn archive_claims_need_files_and_a_clean_name() {
    let base = json!({
        "operation": "download", "volume": "v", "virtual_folder_id": VFID, "files": ["a"],
        "exp": EXP,
    });
    for (claim, value, fits) in [
        ("files", json!(["a", "b"]), true),
        ("files", json!([]), false),
        ("files", json!([5]), false),
        ("files", json!("a"), false),
        ("filename", json!(null), true),
        ("filename", json!("a.zip"), true),
        ("filename", json!("a/b.zip"), false),
        ("filename", json!(5), false),
        ("operation", json!("upload"), false),
        ("extra", json!(1), true),
    ] {
        let mut claims = base.clone();
        claims[claim] = value.clone();
        let got = ArchiveClaims::verify(&secret(), &jws::sign(&claims, &secret()), NOW);
        assert_eq!(got.is_ok(), fits, "{claim} = {value}: {got:?}");
    }
}

#[test]
fn secrets_compare_but_never_print() {
    let secret = secret();
    for (other, want) in [
        ("secret", true),
        ("secreT", false),
        ("", false),
        ("secrets", false),
    ] {
        assert_eq!(secret.eq_constant_time(other.as_bytes()), want, "{other:?}");
    }
    assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
    let failed = TokenError::BadSignature.failure();
    assert_eq!(
        failed,
        "cannot decode the given value as JWT: Signature verification failed"
    );
}

/// A payload as text, so that it may hold a claim twice.
fn signed(payload: &str) -> String {
    use hmac::{KeyInit, Mac};
    let mut token = format!(
        "{}.{}",
        encode(br#"{"alg":"HS256","typ":"JWT"}"#),
        encode(payload.as_bytes())
    );
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"secret").unwrap();
    mac.update(token.as_bytes());
    token.push('.');
    token.push_str(&encode(&mac.finalize().into_bytes()));
    token
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn the_usual_claims_read_at_once_mean_what_the_full_checks_say() {
    let usual = r#""op":"download","volume":"v","vfid":"V","relpath":"a/b","exp":E"#
        .replace('V', &vfid().to_string())
        .replace('E', &EXP.to_string());
    let changes = [
        ("", ""),
        (r#""a/b""#, r#""\ud55c/\"b\"""#),
        (r#""a/b""#, r#""""#),
        (r#""a/b""#, r#""/etc/passwd""#),
        (r#""a/b""#, r#""../a""#),
        (r#""a/b""#, "1"),
        (r#""a/b""#, "null"),
        (r#""download""#, r#""upload""#),
        (r#""volume":"v""#, r#""volume":"""#),
        (r#""volume":"v","#, ""),
        (r#""op":"download","#, r#""op":"download","op":"upload","#),
        (&format!(":{EXP}"), ":1"),
        (&format!(":{EXP}"), ":1e30"),
        (&format!(":{EXP}"), ":-1"),
        (&format!(":{EXP}"), r#":"4000000000""#),
        (&format!(r#","exp":{EXP}"#), ""),
        ("user:", "nobody:"),
        ("{", r#"{"nbf":4000000000,"#),
        ("{", r#"{"aud":"me","#),
        ("{", r#"{"archive":1,"#),
        ("{", r#"{"unmanaged_path":"/srv","#),
    ];
    for (from, to) in changes {
        let payload = format!("{{{usual}}}").replacen(from, to, 1);
        assert!(
            from.is_empty() || payload != format!("{{{usual}}}"),
            "{from} is not there"
        );
        // One more claim that means nothing sends the same payload through the full checks.
        let fully = payload.replacen('{', r#"{"x":1,"#, 1);
        let verify = |payload: &str| DownloadClaims::verify(&secret(), &signed(payload), NOW);
        assert_eq!(verify(&payload), verify(&fully), "{payload}");
    }
}

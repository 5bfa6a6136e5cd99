//! WeCom: errors inside status 200, and the same token until it ends.

use std::time::Duration;

use serde_json::json;

use super::book::{Book, Judgement};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::Vendor;

pub(super) struct WeCom;

impl Vendor for WeCom {
    fn token_path(&self) -> &'static str {
        "/cgi-bin/gettoken"
    }

    fn business_path(&self) -> &'static str {
        "/cgi-bin/message/send"
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("corp", "secret")
    }

    fn grant(&self, request: &ReceivedRequest, book: &mut Book, now: Duration) -> Reply {
        if request.method() != "GET" {
            return failure(43001, "require GET method");
        }
        let Some(corp) = request.query("corpid").filter(|text| !text.is_empty()) else {
            return failure(41002, "corpid missing");
        };
        let Some(secret) = request.query("corpsecret").filter(|text| !text.is_empty()) else {
            return failure(41004, "corpsecret missing");
        };
        if !book.knows(&corp) {
            return failure(40013, "invalid corpid");
        }
        if !book.accepts(&corp, &secret) {
            return failure(40001, "invalid credential");
        }
        let issued = book.current(&corp, &secret, now).unwrap_or_else(|| book.issue(&corp, &secret, now));
        // The whole life every time, however little of it is left.
        answer(&json!({
            "errcode": 0, "errmsg": "ok", "access_token": issued.token, "expires_in": issued.life.as_secs(),
        }))
    }

    fn serve(&self, request: &ReceivedRequest, book: &Book, now: Duration) -> Reply {
        match request.query("access_token").map(|token| book.judge(&token, now)) {
            None => failure(41001, "access_token missing"),
            Some(Judgement::Invalid) => failure(40014, "invalid access_token"),
            Some(Judgement::Ended) => failure(42001, "access_token expired"),
            Some(Judgement::Alive) => answer(&json!({ "errcode": 0, "errmsg": "ok" })),
        }
    }

    fn failure(&self, code: &str) -> Reply {
        failure(code.parse().unwrap_or(-1), "system busy")
    }

    fn throttled(&self) -> Reply {
        failure(45009, "api freq out of limit")
    }
}

fn failure(code: i64, text: &str) -> Reply {
    let more = "hint: [1767225600_47_0123456789abcdef], from ip: 127.0.0.1, more info at \
                https://open.work.weixin.qq.com/devtool/query?e=";
    answer(&json!({ "errcode": code, "errmsg": format!("{text}, {more}{code}") }))
}

fn answer(body: &serde_json::Value) -> Reply {
    Reply::new(200, "application/json; charset=UTF-8", body.to_string())
}

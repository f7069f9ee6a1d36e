use serde_json::json;

use super::*;

fn owner(manager: &str, operation: Operation, seconds: i64, field: &str) -> Owner {
    let identity = Identity {
        manager: manager.to_owned(),
        operation,
        api_version: "v1".to_owned(),
        subresource: String::new(),
    };
    let mut owner = Owner::new(identity, FieldSet::of_fields(&["spec", field]));
    owner.touch(Timestamp::from_second(seconds).unwrap());
    owner
}

#[test]
fn the_record_round_trips_in_order() {
    let record = json!([
        {"manager": "b", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:02Z",
         "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:a": {}}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z",
         "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:b": {}}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z",
         "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:b": {}}}, "subresource": "status"}
    ]);
    let mut reversed = record.as_array().unwrap().clone();
    reversed.reverse();
    let object = json!({"metadata": {"name": "x", "managedFields": reversed}});
    let managers = Managers::parse(&object).unwrap();
    assert_eq!(managers.owners().len(), 3);
    let mut written = json!({"metadata": {"name": "x"}});
    managers.write(&mut written);
    assert_eq!(written["metadata"]["managedFields"], record);

    let mut bare = written;
    Managers::default().write(&mut bare);
    assert_eq!(bare, json!({"metadata": {"name": "x"}}));
}

#[test]
fn malformed_records_are_refused() {
    let entry = json!({"manager": "a", "operation": "Apply", "apiVersion": "v1",
                       "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}});
    let with = |key: &str, value: Value| {
        let mut entry = entry.clone();
        entry[key] = value;
        Managers::parse(&json!({"metadata": {"managedFields": [entry]}}))
    };
    assert!(with("manager", json!("b")).is_ok());
    for (key, value, message) in [
        (
            "operation",
            json!("Patch"),
            "operation must be `Apply` or `Update`",
        ),
        ("apiVersion", json!(""), "apiVersion must not be empty"),
        (
            "fieldsType",
            json!(""),
            "missing fieldsType in managed fields entry 0",
        ),
        (
            "fieldsType",
            json!("V2"),
            r#"invalid fieldsType "V2" in managed fields entry 0"#,
        ),
        (
            "fieldsV1",
            json!({"x": {}}),
            r#"error decoding set: invalid field "x": expected f:, k:, v: or i: and a name, keys, value or index"#,
        ),
    ] {
        assert_eq!(with(key, value).unwrap_err().to_string(), message);
    }
    assert_eq!(
        Managers::parse(&json!({"metadata": {"managedFields": 1}})),
        Err(ManagersError::NotAList)
    );
}

#[test]
fn owners_are_described() {
    let mut one = owner("m", Operation::Update, 0, "a").identity;
    assert_eq!(one.describe(), r#""m" using v1"#);
    one.subresource = "status".to_owned();
    assert_eq!(one.describe(), r#""m" with subresource "status" using v1"#);
    one.operation = Operation::Apply;
    assert_eq!(one.describe(), r#""m" with subresource "status""#);
}

#[test]
fn the_oldest_updaters_are_put_together() {
    let mut managers = Managers::default();
    managers.put(owner("applier", Operation::Apply, 0, "z"));
    for i in 0..12_i64 {
        managers.put(owner(
            &format!("m{i:02}"),
            Operation::Update,
            100 - i,
            &format!("f{i}"),
        ));
    }
    managers.cap_updaters();
    let names: Vec<_> = managers
        .owners()
        .iter()
        .map(|owner| owner.identity.manager.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "applier",
            "m00",
            "m01",
            "m02",
            "m03",
            "m04",
            "m05",
            "m06",
            "m07",
            "m08",
            "ancient-changes"
        ]
    );
    let old = managers.owners().last().unwrap();
    assert_eq!(old.fields.paths(), [".spec.f10", ".spec.f11", ".spec.f9"]);
    assert_eq!(old.time.as_deref(), Some("1970-01-01T00:01:31Z"));
}

#[test]
fn resets_are_recognised() {
    for (record, expected) in [
        (json!([]), true),
        (json!([{}]), true),
        (json!([{"manager": "a"}]), false),
        (json!(null), false),
    ] {
        let object = json!({"metadata": {"managedFields": record}});
        assert_eq!(asks_for_reset(&object), expected);
    }
    assert!(!asks_for_reset(&json!({"metadata": {}})));
}

use super::*;

#[test]
fn types_are_told_and_made() {
    check(&[
        (r#"Bool("true")"#, "true"),
        (r#"Bool("0")"#, "false"),
        (r#"Bool("yes")"#, "error: neither true nor false"),
        (r#"Bool(attributes["l"])"#, "error: a list where a boolean"),
        (r#"Bool(attributes["i"])"#, "true"),
        (r#"Bool(attributes["none"])"#, "nil"),
        (r#"Int("42")"#, "42"),
        (r#"Int("2.0")"#, "nil"),
        (r#"Int(-2.9)"#, "-2"),
        (r#"Int(attributes["t"])"#, "1"),
        (r#"Int("x")"#, "nil"),
        (r#"Int(attributes["m"])"#, "error: a map where"),
        (r#"Double("2.5")"#, "double 2.5"),
        (r#"Double(attributes["i"])"#, "double 7"),
        (r#"Double("x")"#, "error: no number"),
        (r#"Double(attributes["m"])"#, "error: a map where"),
        (r#"Double(attributes["none"])"#, "nil"),
        (r#"String(Unix(0))"#, r#""\"1970-01-01T00:00:00Z\"""#),
        (r#"String(attributes["i"])"#, r#""7""#),
        (r#"String(attributes["d"])"#, r#""1.5""#),
        (r#"String(attributes["b"])"#, r#""01ab""#),
        (r#"String(attributes["l"])"#, r#""[\"x\",\"y\",3]""#),
        (r#"String(attributes["none"])"#, "nil"),
        (r#"IsBool(attributes["t"])"#, "true"),
        (r#"IsDouble(attributes["i"])"#, "false"),
        (r#"IsInt(attributes["i"])"#, "true"),
        (r#"IsList(attributes["l"])"#, "true"),
        (r#"IsMap(attributes["m"])"#, "true"),
        ("IsMap(attributes)", "true"),
        ("IsString(body)", "true"),
        (r#"IsString(attributes["none"])"#, "false"),
        (r#"IsEmpty("")"#, "true"),
        ("IsEmpty(trace_id)", "true"),
        (r#"IsEmpty(attributes["none"])"#, "true"),
        (r#"IsEmpty(attributes["l"])"#, "false"),
        ("Hex(12)", r#""000000000000000c""#),
        (r#"Hex("1")"#, r#""31""#),
        ("Hex(true)", r#""01""#),
        ("Hex(nil)", r#""""#),
        (r#"Hex(attributes["l"])"#, "error: a list where"),
        ("Hex(1.1)", r#""3ff199999999999a""#),
        ("Log(1)", "double 0"),
        (r#"Log(attributes["s"])"#, "error: no number"),
        ("Log(0)", "error: not above 0"),
        (r#"SpanID("0102030405060708")"#, "bytes 0102030405060708"),
        ("SpanID(0x01)", "error: 1 bytes where 8 are needed"),
        (
            "TraceID(0x00112233445566778899aabbccddeeff)",
            "bytes 00112233445566778899aabbccddeeff",
        ),
        (r#"IsValidLuhn("17893729974")"#, "true"),
        (r#"IsValidLuhn("17893729975")"#, "false"),
        (r#"IsValidLuhn("")"#, "false"),
        (r#"IsValidLuhn("12x")"#, "error: digits"),
        ("IsRootSpan()", "false"),
    ]);
}

#[test]
fn text_is_searched_cut_and_put_together() {
    check(&[
        (r#"IsMatch(body, "^GET")"#, "true"),
        (r#"IsMatch(attributes["i"], "^7$")"#, "true"),
        (r#"IsMatch(attributes["none"], ".*")"#, "false"),
        (r#"HasPrefix(body, "GET")"#, "true"),
        (r#"HasSuffix(body, "GET")"#, "false"),
        (r#"TrimPrefix(body, "GET ")"#, r#""/a?x=1 200""#),
        (r#"TrimPrefix(body, "PUT ")"#, r#""GET /a?x=1 200""#),
        (r#"TrimSuffix(body, " 200")"#, r#""GET /a?x=1""#),
        (r#"Trim("  a b ")"#, r#""a b""#),
        (r#"Trim("!!a!!", "!")"#, r#""a""#),
        (r#"Trim("xéx", "x")"#, r#""é""#),
        (
            r#"Concat(["a", 1, true, 1.5, nil, 0x0a], "-")"#,
            r#""a-1-true-1.5-<nil>-0a""#,
        ),
        (
            r#"Concat([body, attributes["m"], attributes["i"]], "|")"#,
            r#""GET /a?x=1 200|{\"k\":\"v\",\"n\":{\"deep\":1}}|7""#,
        ),
        (r#"Split("a,b,,c", ",")"#, r#"["a","b","","c"]"#),
        (r#"Split("ab", "")"#, r#"["a","b"]"#),
        (r#"Split(body, " ")[1]"#, r#""/a?x=1""#),
        (r#"Split(attributes["i"], " ")"#, "error: text is needed"),
        (r#"Substring("123456789", 0, 3)"#, r#""123""#),
        (r#"Substring(body, 4, 2)"#, r#""/a""#),
        (r#"Substring("123", 1, 3)"#, "error: beyond the text"),
        (r#"Substring("123", -1, 3)"#, "error: below 0"),
        (r#"Substring("123", 0, 0)"#, "error: not above 0"),
        (r#"Substring("一二三", 0, 4, true)"#, r#""一""#),
        (r#"Substring("一二三", 1, 5, true)"#, r#""二""#),
        ("Len(body)", "14"),
        (r#"Len(attributes["l"])"#, "3"),
        (r#"Len(attributes["m"])"#, "2"),
        (r#"Len(attributes["i"])"#, "error: text, a list or a map"),
        (r#"Index("hello world", "world")"#, "6"),
        (r#"Index(attributes["l"], "y")"#, "1"),
        (r#"Index(attributes["l"], "z")"#, "-1"),
        (r#"ToUpperCase("aé1")"#, r#""AÉ1""#),
        (r#"ToLowerCase("AB")"#, r#""ab""#),
        (r#"ToSnakeCase("myMetric")"#, r#""my_metric""#),
        (r#"ToCamelCase("my_metric_name")"#, r#""MyMetricName""#),
        (r#"ToCamelCase("HTTPServer")"#, r#""Httpserver""#),
        (r#"ToCamelCase("userID")"#, r#""UserId""#),
        (r#"ConvertCase(body, "lower")"#, r#""get /a?x=1 200""#),
        (r#"Base64Encode("test string")"#, r#""dGVzdCBzdHJpbmc=""#),
        (r#"Base64Encode("a", "base64-raw")"#, r#""YQ""#),
        (r#"Base64Decode("aGVsbG8gd29ybGQ=")"#, r#""hello world""#),
        (
            r#"Decode("aGVsbG8gd29ybGQ=", "base64")"#,
            r#""hello world""#,
        ),
        (r#"Decode(0xe9, "iso-8859-1")"#, r#""é""#),
        (r#"Decode("?", "base64")"#, "error: not of this encoding"),
    ]);
}

#[test]
fn formats_are_those_of_sprintf() {
    check(&[
        (
            r#"Format("%02d|%5d|%-5d|%+d", [7, 42, 42, 42])"#,
            r#""07|   42|42   |+42""#,
        ),
        (
            r#"Format("%s/%04d-%02d.log", [attributes["s"], 2026, 3])"#,
            r#""text/2026-03.log""#,
        ),
        (
            r#"Format("%x %X %o %b %#x", [255, 255, 8, 5, 255])"#,
            r#""ff FF 10 101 0xff""#,
        ),
        (
            r#"Format("%f %.2f %8.3f %e %g", [1.5, 1.005, 3.14159, 1500.0, 0.00001])"#,
            r#""1.500000 1.00    3.142 1.500000e+03 1e-05""#,
        ),
        (
            r#"Format("%v %v %v %t", [1, "a", nil, true])"#,
            r#""1 a <nil> true""#,
        ),
        (
            r#"Format("%5s|%-5s|%.2s|%q", ["ab", "ab", "abc", "a"])"#,
            r#""   ab|ab   |ab|\"a\"""#,
        ),
        (r#"Format("%d", ["x"])"#, r#""%!d(string=x)""#),
        (r#"Format("%d %d", [1])"#, r#""1 %!d(MISSING)""#),
        (r#"Format("%d", [1, 2])"#, r#""1%!(EXTRA int64=2)""#),
        (r#"Format("100%%", [])"#, r#""100%""#),
        (r#"Format("%", [])"#, r#""%!(NOVERB)""#),
        (r#"Format("%-04d|%06.1f", [-7, -2.25])"#, r#""-7  |-002.2""#),
    ]);
}

#[test]
fn digests_are_the_published_ones() {
    check(&[
        (r#"MD5("name")"#, r#""b068931cc450442b63f5b3d276ea4297""#),
        (
            r#"SHA1("name")"#,
            r#""6ae999552a0d2dca14d62e2bc8b764d377b1dd6c""#,
        ),
        (
            r#"SHA256("name")"#,
            r#""82a3537ff0dbce7eec35d69edc3a189ee6f17d82f353a553f9aa96cb0be3ce89""#,
        ),
        (r#"Substring(SHA512(""), 0, 16)"#, r#""cf83e1357eefb8bd""#),
        (r#"FNV("a")"#, "-5808556873153909620"),
        (r#"SHA256(attributes["i"])"#, "error: text is needed"),
        (r#"Murmur3Hash("hello")"#, r#""47fa8b24""#),
        (
            r#"Murmur3Hash128("hello")"#,
            r#""029bbd41b3a7d8cb191dae486a901e5b""#,
        ),
    ]);
}

#[test]
fn times_have_parts_and_texts() {
    check(&[
        ("Now()", "time 1772370309250000000"),
        (
            r#"Time("2023-05-26 12:34:56", "%Y-%m-%d %H:%M:%S", "America/New_York")"#,
            "time 1685118896000000000",
        ),
        (
            r#"Time("02/04/2023", "%m/%d/%Y", "UTC")"#,
            "time 1675468800000000000",
        ),
        (
            r#"Time("02/04/2023", "%m/%d/%Y", "UTC", "en-US")"#,
            "time 1675468800000000000",
        ),
        (r#"Time("x", "%m/%d/%Y")"#, "error: expected a month"),
        (
            r#"FormatTime(time, "%Y-%m-%dT%H:%M:%S.%L")"#,
            r#""2026-03-01T13:05:09.25""#,
        ),
        (
            r#"FormatTime(TruncateTime(time, Duration("10m")), "%T")"#,
            r#""13:00:00""#,
        ),
        (
            "TruncateTime(time, Duration(\"24h\"))",
            "time 1772323200000000000",
        ),
        ("Unix(1672527600)", "time 1672527600000000000"),
        ("Unix(1, 5)", "time 1000000005"),
        ("Unix(9223372036854775807)", "error: out of range"),
        ("UnixSeconds(time)", "1772370309"),
        ("UnixMilli(time)", "1772370309250"),
        ("UnixMicro(time)", "1772370309250000"),
        ("UnixNano(time)", "1772370309250000000"),
        ("Year(time)", "2026"),
        ("Month(time)", "3"),
        ("Day(time)", "1"),
        ("Weekday(time)", "0"),
        ("Hour(time)", "13"),
        ("Minute(time)", "5"),
        ("Second(time)", "9"),
        ("Nanosecond(time)", "250000000"),
        (r#"Hour(attributes["i"])"#, "error: a time is needed"),
        (r#"Duration("1h30m")"#, "duration 5400000000000"),
        (r#"Duration("x")"#, "error: no duration"),
        (r#"Hours(Duration("90m"))"#, "double 1.5"),
        (r#"Minutes(Duration("90s"))"#, "double 1.5"),
        (r#"Seconds(Duration("1500ms"))"#, "double 1.5"),
        (r#"Milliseconds(Duration("1h"))"#, "3600000"),
        (r#"Microseconds(Duration("1ms"))"#, "1000"),
        (r#"Nanoseconds(Duration("1us"))"#, "1000"),
        (r#"time - Duration("1s")"#, "time 1772370308250000000"),
        ("time - time", "duration 0"),
    ]);
}

#[test]
fn formats_are_parsed() {
    check(&[
        (
            r#"ParseJSON(attributes["json"])"#,
            r#"{"a":2,"b":{"c":[true,null]}}"#,
        ),
        (r#"ParseJSON(attributes["json"])["a"]"#, "double 2"),
        (r#"ParseJSON("[1, \"x\"]")"#, r#"[1,"x"]"#),
        (r#"ParseJSON("{\"a\":\"\\u00e9\\n\"}")["a"]"#, r#""é\n""#),
        (r#"ParseJSON("1")"#, "error: no object and no list"),
        (
            r#"ParseJSON("{\"a\"}")"#,
            "error: not JSON at line 1 column 5",
        ),
        ("ParseJSON(body)", "error: not JSON"),
        (
            r#"ParseKeyValue("k1=v1 k2=v2  k3='v 3'")"#,
            r#"{"k1":"v1","k2":"v2","k3":"v 3"}"#,
        ),
        (
            r#"ParseKeyValue("k1!v1_k2!v2_k3!v3", "!", "_")"#,
            r#"{"k1":"v1","k2":"v2","k3":"v3"}"#,
        ),
        (r#"ParseKeyValue("a=1 b")"#, "error: no delimiter"),
        (r#"ParseKeyValue("a='1")"#, "error: a quote has no end"),
        (r#"ParseKeyValue("")"#, "error: empty"),
        (
            r#"ToKeyValueString({"k1": "v1", "k2": "v=2", "k3": "\"v=3\""})"#,
            r#""k1=v1 k2=\"v=2\" k3=\"\\\"v=3\\\"\"""#,
        ),
        (
            r#"ToKeyValueString({"b": 1, "a": {"c": 2}}, ":", ",", true)"#,
            r#""a:\"{\\\"c\\\":2}\",b:1""#,
        ),
        (r#"ParseInt("12345", 10)"#, "12345"),
        (r#"ParseInt("0b1111_0000", 0)"#, "240"),
        (r#"ParseInt("-0xFF", 0)"#, "-255"),
        (r#"ParseInt("-0o123", 0)"#, "-83"),
        (r#"ParseInt("0xAA", 0)"#, "170"),
        (r#"ParseInt("AA", 16)"#, "170"),
        (r#"ParseInt("-20", 8)"#, "-16"),
        (
            r#"ParseInt("-9223372036854775808", 10)"#,
            "-9223372036854775808",
        ),
        (r#"ParseInt("--1", 10)"#, "error: no number"),
        (r#"ParseInt("1", 1)"#, "error: a base is"),
        (
            r#"ExtractPatterns(body, "(?P<method>\\w+) (?P<path>[^?]+)(?P<none>!)?")"#,
            r#"{"method":"GET","none":"","path":"/a"}"#,
        ),
        (r#"ExtractPatterns(body, "(?P<method>^PUT)")"#, "{}"),
        (
            r#"IsInCIDR("192.168.1.1", ["10.0.0.0/8", "192.168.0.0/16"])"#,
            "true",
        ),
        (r#"IsInCIDR("::ffff:10.1.1.1", ["10.0.0.0/8"])"#, "true"),
        (r#"IsInCIDR("2001:db8::1", ["2001:db8::/32"])"#, "true"),
        (
            r#"IsInCIDR("11.0.0.1", ["10.0.0.0/8", "0.0.0.0/32"])"#,
            "false",
        ),
        (r#"IsInCIDR("1.2.3.4", ["0.0.0.0/0"])"#, "true"),
        (r#"IsInCIDR("x", ["0.0.0.0/0"])"#, "false"),
    ]);
}

#[test]
fn lists_and_maps_are_worked_on() {
    check(&[
        (
            r#"Coalesce([attributes["none"], nil, body])"#,
            r#""GET /a?x=1 200""#,
        ),
        (r#"Coalesce([attributes["none"]])"#, "nil"),
        (r#"ContainsValue(attributes["l"], "y")"#, "true"),
        (r#"ContainsValue([1.1, 2.2], 2.2)"#, "true"),
        (r#"ContainsValue(["GET"], "PUT")"#, "false"),
        (r#"Keys({"k1": "v1", "k2": 2})"#, r#"["k1","k2"]"#),
        (r#"Values({"k1": "v1", "k2": 2})"#, r#"["v1",2]"#),
        (r#"Keys(attributes["i"])"#, "error: a map is needed"),
        (
            r#"SliceToMap([{"n": "foo", "v": 2}, {"n": "bar", "v": 5}], ["n"], ["v"])"#,
            r#"{"bar":5,"foo":2}"#,
        ),
        (r#"SliceToMap([{"n": "foo"}])"#, r#"{"0":{"n":"foo"}}"#),
        (
            r#"SliceToMap([{"n": 1}], ["n"])"#,
            "error: no text at key_path",
        ),
        (r#"SliceToMap([1, "a"])"#, r#"{"0":1,"1":"a"}"#),
        (r#"SliceToMap([1], ["k"])"#, "error: no map"),
        ("Sort([3, 1, 2])", "[1,2,3]"),
        (r#"Sort([3, 1, 2], "desc")"#, "[3,2,1]"),
        ("Sort([2.5, 1])", "[1,2.5]"),
        (r#"Sort([true, "b", 10, 9.5])"#, r#"[10,9.5,"b",true]"#),
        ("Sort([[2], [1]])", "[[2],[1]]"),
    ]);
}

/// Guarantee: the converters that are promised are there, and no name is in both lists.
#[test]
fn what_is_built_is_told() {
    let built: Vec<&str> = crate::converters().collect();
    assert!(built.len() >= 90, "{}", built.len());
    assert!(crate::NOT_BUILT.iter().all(|name| !built.contains(name)));
    let mut unique = built.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), built.len());
    assert_eq!(crate::editors().count(), 31);
}

#[test]
fn digests_and_ids_are_those_of_their_definitions() {
    check(&[
        // Of the reference implementation of xxHash: nothing, with seed 0.
        (r#"XXH3("")"#, r#""2d06800538d394c2""#),
        (r#"XXH128("")"#, r#""99aa06d3014798d86001c324468d497f""#),
        // Of the specification of Community ID, both directions of a flow.
        (
            r#"CommunityID("128.232.110.120", 34855, "66.35.250.204", 80)"#,
            r#""1:LQU9qZlK+B5F3KDmev6m5PMibrg=""#,
        ),
        (
            r#"CommunityID("66.35.250.204", 80, "128.232.110.120", 34855, "TCP")"#,
            r#""1:LQU9qZlK+B5F3KDmev6m5PMibrg=""#,
        ),
        (
            r#"CommunityID("128.232.110.120", 34855, "66.35.250.204", 80, "TCP", 1)"#,
            r#""1:3V71V58M3Ksw/yuFALMcW0LAHvc=""#,
        ),
        (
            r#"CommunityID("192.168.1.52", 54585, "8.8.8.8", 53, "UDP")"#,
            r#""1:d/FP5EW3wiY1vCndhwleRRKHowQ=""#,
        ),
        (
            r#"CommunityID("x", 1, "8.8.8.8", 53)"#,
            "error: no IP address",
        ),
        (
            r#"CommunityID("::1", 0, "8.8.8.8", 53)"#,
            "error: 1 to 65535",
        ),
        ("Len(UUID())", "36"),
        ("Substring(UUID(), 14, 1)", r#""4""#),
        ("Substring(UUIDv7(), 14, 1)", r#""7""#),
        // The time of the record's batch, in ms.
        (
            r#"ParseInt(Concat([Substring(UUIDv7(), 0, 8), Substring(UUIDv7(), 9, 4)], ""), 16)"#,
            "1772370309250",
        ),
    ]);
    assert_ne!(eval("UUID()").unwrap().kind(), "nil");
    assert_ne!(
        shown(&eval("UUID()").unwrap()),
        shown(&eval("UUID()").unwrap())
    );
}

#[test]
fn rows_of_csv_are_parsed() {
    check(&[
        (
            r#"ParseCSV("1,\"2,3\",4", "a,b,c")"#,
            r#"{"a":"1","b":"2,3","c":"4"}"#,
        ),
        (
            r#"ParseCSV("555-555|Joe", "phone,name", delimiter="|", header_delimiter=",")"#,
            r#"{"name":"Joe","phone":"555-555"}"#,
        ),
        (r#"ParseCSV("1|2", "a|b", "|")"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"ParseCSV("1,\"2", "a,b", mode="ignoreQuotes")"#,
            r#"{"a":"1","b":"\"2"}"#,
        ),
        (
            r#"ParseCSV("x \"y\",1", "a,b", mode="lazyQuotes")"#,
            r#"{"a":"x \"y\"","b":"1"}"#,
        ),
        (
            r#"ParseCSV("x \"y\",1", "a,b")"#,
            "error: a quote in a value that is not quoted",
        ),
        (
            r#"ParseCSV("1,2", "a")"#,
            "error: 2 values where the header has 1 names",
        ),
        (r#"ParseCSV("", "a")"#, "error: is empty"),
        (
            r#"ParseCSV("1", "a", "||")"#,
            "error: a delimiter is one character",
        ),
        (
            r#"ParseCSV("1", "a", mode="lazy")"#,
            "error: one of strict, lazyQuotes, ignoreQuotes",
        ),
    ]);
}

#[test]
fn patterns_of_grok_are_extracted() {
    check(&[
        (
            r#"ExtractGrokPatterns(body, "%{WORD:method} %{URIPATHPARAM:url.path} %{NUMBER:status:int}", true)"#,
            r#"{"method":"GET","status":200,"url.path":"/a?x=1"}"#,
        ),
        // Names of patterns name groups, too, unless named ones alone are wanted.
        (
            r#"ExtractGrokPatterns(body, "%{WORD} .* %{NUMBER:status}")"#,
            r#"{"BASE10NUM":"200","WORD":"GET","status":"200"}"#,
        ),
        (
            r#"ExtractGrokPatterns("took 1.5 ok=true x", "%{NUMBER:took:float} ok=%{BOOL:ok:bool}(?P<rest>.*)", true)"#,
            r#"{"ok":true,"rest":" x","took":1.5}"#,
        ),
        (
            r#"ExtractGrokPatterns("id-7b", "%{ID:id}", true, ["ID=id-%{TAIL}", "TAIL=[0-9a-f]+"])"#,
            r#"{"id":"id-7b"}"#,
        ),
        (
            r#"ExtractGrokPatterns("127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif HTTP/1.0\" 200 2326", "%{COMMONAPACHELOG}", true)["http.response.status_code"]"#,
            "200",
        ),
        (r#"ExtractGrokPatterns(body, "%{IPV4:ip}", true)"#, "{}"),
        (
            r#"ExtractGrokPatterns("x", "%{WORD:w:int}", true)"#,
            "error: a group is no integer",
        ),
        (
            r#"ExtractGrokPatterns(body, "%{WROD:w}")"#,
            r#"error: the pattern WROD is not known; define it in pattern_definitions; did you mean "WORD"?"#,
        ),
        (
            r#"ExtractGrokPatterns(body, "%{WORD:w:integer}")"#,
            "error: the type integer of a group",
        ),
        (
            r#"ExtractGrokPatterns(body, "%{WORD}", true)"#,
            "error: no named group",
        ),
        (
            r#"ExtractGrokPatterns(body, "%{A:a}", true, ["A=%{A}"])"#,
            "error: in a circle",
        ),
        (
            r#"ExtractGrokPatterns(body, "%{WORD:w}(", true)"#,
            "error: does not become a regular expression",
        ),
    ]);
}

#[test]
fn xml_is_parsed_whole_and_simplified() {
    check(&[
        (
            r#"ParseXML("<?xml version=\"1.0\"?><Log><User id='7'><n:Name type=\"first\">Joe</n:Name></User><!-- c --><Text> did &lt;a&#x21; </Text></Log>")"#,
            r#"{"children":[{"attributes":{"id":"7"},"children":[{"attributes":{"type":"first"},"content":"Joe","tag":"Name"}],"tag":"User"},{"content":"did <a!","tag":"Text"}],"tag":"Log"}"#,
        ),
        (
            r#"ParseXML("<a>x<![CDATA[<y>]]><b/> z </a>")["content"]"#,
            r#""x<y>z""#,
        ),
        (
            r#"ParseXML("<a><b></a>")"#,
            "error: of no element that is open",
        ),
        (r#"ParseXML("<a>")"#, "error: an element has no end"),
        (r#"ParseXML("<a b=c/>")"#, "error: not in quotes"),
        (r#"ParseXML("<a>&x;</a>")"#, "error: an entity is not known"),
        (
            r#"ParseXML("<!DOCTYPE a [<!ENTITY x \"y\">]><a>1</a>")["content"]"#,
            r#""1""#,
        ),
        (r#"ParseXML("none")"#, "error: there is no element"),
        // Restated from the tests of the collector's function.
        (
            r#"ParseSimplifiedXML("<a>b</a><a>c</a>")"#,
            r#"{"a":["b","c"]}"#,
        ),
        (
            r#"ParseSimplifiedXML("<a>1</a><a><![CDATA[2]]></a><a><b>3</b></a>")"#,
            r#"{"a":["1","2",{"b":"3"}]}"#,
        ),
        (
            r#"ParseSimplifiedXML("<a foo='bar'>extra<b x='y'>c</b>extra</a>")"#,
            r#"{"a":{"b":"c"}}"#,
        ),
        (
            r#"ParseSimplifiedXML("<a><b>2</b><c>4</c><c><!-- none --></c></a>")"#,
            r#"{"a":{"b":"2","c":["4"]}}"#,
        ),
        (
            r#"ParseSimplifiedXML("<a><b><c/></b><d>2</d></a>")"#,
            r#"{"a":{"d":"2"}}"#,
        ),
        (
            r#"URL("http://u:p@h.com:80/p/q.html?x=1#f")["url.domain"]"#,
            r#""h.com""#,
        ),
        (
            r#"URL("http://u:p@h.com:80/p/q.html?x=1#f")["url.port"]"#,
            "80",
        ),
        (
            r#"URL("http://u:p@h.com:80/p/q.html?x=1#f")["url.user_info"]"#,
            r#""u:p""#,
        ),
        (r#"URL("http://h/a.b")["url.extension"]"#, r#""b""#),
        (r#"URL("http://h/a")["url.port"]"#, "nil"),
        (r#"URL("?a=1")"#, r#"{"query":{"a":["1"]}}"#),
        (r#"URL("")"#, "error: empty"),
        (r#"URL("http://h:x")"#, "error: a port"),
        (r#"ParseSimplifiedXML("")"#, "error: no element"),
        (r#"ParseSimplifiedXML("text")"#, "error: no element"),
    ]);
    let deep = format!("ParseXML(\"{}\")", "<a>".repeat(101));
    assert!(eval(&deep).unwrap_err().contains("nested too deeply"));
}

#[test]
fn severities_are_told_by_a_mapping() {
    let mapping = r#"{"error": [{"equals": ["err", "bad"]}, {"range": "5xx"}], "info": [{"range": {"min": 100, "max": 399}}]}"#;
    for (target, want) in [
        (r#""bad""#, r#""error""#),
        ("503", r#""error""#),
        ("399", r#""info""#),
        ("404", "error: no criterion"),
        ("1.5", "error: text or an integer"),
    ] {
        check(&[(&format!("ParseSeverity({target}, {mapping})"), want)]);
    }
    check(&[
        (
            r#"ParseSeverity(1, {"a": "b"})"#,
            "error: no list of criteria",
        ),
        (
            r#"ParseSeverity(1, {"a": [{"range": {"min": 1}}]})"#,
            "error: no integers min and max",
        ),
    ]);
}

//! The one style sheet; its hash stands in the content security policy.

/// Colours are variables, so that dark mode is one rule. Text has a contrast of 4.5 at least, marks of 3, on both papers.
pub const STYLE: &str = ":root{color-scheme:light dark;--page:#f3f5f7;--card:#fff;--ink:#1d232b;--soft:#59636f;--line:#dfe3e8;\
--c0:#0067b0;--c1:#c25100;--c2:#007a58;--c3:#9c4f92;--c4:#68707a;--good:#00704f;--bad:#b3261e;--busy:#005fa3;--warn:#9a4a00;--link:#005fa3}
@media (prefers-color-scheme:dark){:root{--page:#12161b;--card:#1b2027;--ink:#e7eaee;--soft:#a0aab5;--line:#343c46;\
--c0:#4aa3e0;--c1:#f08b45;--c2:#35b88d;--c3:#cf8cc4;--c4:#87919c;--good:#4ccb9f;--bad:#ff8a80;--busy:#6bb8f0;--warn:#f5a35c;--link:#7cc0f2}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,-apple-system,\"Segoe UI\",Roboto,\"Helvetica Neue\",sans-serif}
main{max-width:1200px;margin:0 auto;padding:20px 16px 40px}
a{color:var(--link)}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1rem;margin:0 0 10px}
p{margin:0 0 8px}
small,.soft,.over,.note,footer,figcaption p,figcaption span{color:var(--soft);font-size:.84rem}
small{white-space:nowrap}
.over{margin:0 0 2px}
.state{font-size:1.05rem;margin:0 0 16px}
.badge{display:inline-block;border-radius:99px;padding:1px 12px;margin-right:4px;border:1.5px solid currentColor;font-weight:600;white-space:nowrap}
.calm{color:var(--soft)}.busy{color:var(--busy)}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:0 0 16px;min-width:0}
.card>:last-child{margin-bottom:0}
.two{display:grid;grid-template-columns:minmax(0,1fr);column-gap:16px}
@media (min-width:900px){.two{grid-template-columns:minmax(0,1fr) minmax(0,1fr)}}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;margin:0 0 16px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;min-width:0}
dt{color:var(--soft);font-size:.84rem}
dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles dd{font-size:1.3rem;font-weight:650;line-height:1.3}
.tiles dd.long{font-size:1.05rem;line-height:1.6}
.tiles dd.note{font-size:.84rem;font-weight:400;line-height:1.35}
.facts{margin:0}
.facts div{display:grid;grid-template-columns:minmax(0,15em) minmax(0,1fr);gap:0 12px;padding:3px 0;border-top:1px solid var(--line)}
.facts div:first-child{border:0}
.meter{margin:0 0 10px}
.meter p{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 12px;margin:0 0 1px}
.meter b{font-variant-numeric:tabular-nums}
svg{display:block;overflow:visible}
.track{fill:var(--line)}
.mark{stroke:var(--ink);stroke-width:2}
figure{display:flex;flex-direction:column}
figcaption p{margin:1px 0 0}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;margin:8px 0 0;padding:0;font-size:.84rem}
.legend li{display:flex;align-items:center;gap:6px}
.legend i{width:11px;height:11px;border-radius:3px}
.plot{display:grid;grid-template-columns:46px minmax(0,1fr);margin-top:auto;padding-top:6px}
.scale,.area{width:100%}
.area text,.scale text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
.area .name{fill:var(--ink);paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--line)}
.under{stroke:var(--card);stroke-width:3;opacity:.85}
.level{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
polyline{fill:none;stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.l4{stroke:var(--c4)}
.s0{fill:var(--c0)}.s1{fill:var(--c1)}.s2{fill:var(--c2)}.s3{fill:var(--c3)}.s4{fill:var(--c4)}
.k0{background:var(--c0)}.k1{background:var(--c1)}.k2{background:var(--c2)}.k3{background:var(--c3)}.k4{background:var(--c4)}
.sign{fill:var(--bad)}
.nothing{color:var(--soft);text-align:center;padding:28px 0;margin:0}
.scroll{overflow:auto;max-height:430px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.88rem}
th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;position:sticky;top:0;background:var(--card);z-index:2}
td.name,td.key,th:first-child{position:sticky;left:0;background:var(--card);padding-left:0;z-index:1}
th:first-child{z-index:3}
td.name{white-space:normal;overflow-wrap:anywhere;min-width:8em}
.r{text-align:right;font-variant-numeric:tabular-nums}
.warnings ul{list-style:none;margin:0;padding:0;font-size:.9rem}
.warnings li{padding:4px 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
.warnings li:first-child{border:0}
.all .scroll{max-height:none}
.warnings .scroll{max-height:170px}
.more{margin:-6px 0 16px}
@media (max-width:480px){main{padding:14px 10px 28px}h1{font-size:1.35rem}.card{padding:12px}.tiles{grid-template-columns:1fr 1fr;gap:8px}\
.facts div{grid-template-columns:minmax(0,10em) minmax(0,1fr)}th,td{padding:5px 7px}}
@media print{body{background:none}.card{break-inside:avoid}.scroll{max-height:none;overflow:visible}}
";

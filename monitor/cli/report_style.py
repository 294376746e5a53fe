"""The report's style sheet and script."""

STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--ink:#1c2430;--dim:#647082;--line:#e2e6ec}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1b212a;--ink:#e7ebf1;--dim:#93a0b2;
--line:#2c3541}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header{padding:28px 24px 4px;max-width:1280px;margin:auto}
h1{margin:0;font-size:26px;letter-spacing:-.01em}
h2{margin:0;font-size:16px}
.sub{margin:2px 0 0;color:var(--dim);overflow-wrap:anywhere}
main{max-width:1280px;margin:auto;padding:12px 24px 40px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-top:4px solid var(--tone);
border-radius:10px;padding:12px 16px}
.tile span{color:var(--dim);font-size:13px}
.tile b{display:block;white-space:nowrap;font-size:clamp(20px,2vw,28px);
line-height:1.25;font-variant-numeric:tabular-nums}
.tile small{color:var(--dim)}
.policy{color:var(--dim);margin:14px 2px}
.policy b{color:var(--ink)}
.plots{columns:2;column-gap:12px}
.plots .card{break-inside:avoid}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;
margin:0 0 12px}
figcaption p{margin:0;color:var(--dim);font-size:13px}
.plot{width:100%;min-height:220px}
section.card{margin-top:12px}
.scroll{overflow:auto;max-height:640px;margin-top:8px}
table{border-collapse:collapse;width:100%;font-size:13px}
th{position:sticky;top:0;background:var(--card);text-align:left;color:var(--dim);font-weight:600}
th,td{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
.why,.who{overflow-wrap:anywhere}
.who{min-width:90px}
.t{white-space:nowrap}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:16px}
.why{min-width:340px}
i{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:6px;background:#4c8dae}
i.flag{background:#e0a526}
i.quarantine{background:#d1495b}
footer{color:var(--dim);font-size:12px;margin-top:16px}
@media(max-width:860px){.plots{columns:1}}
@media print{.scroll{max-height:none}}
"""

SCRIPT = """
(function(){
  var figures = JSON.parse(document.getElementById('figures').textContent);
  var dark = window.matchMedia('(prefers-color-scheme: dark)');
  function themed(layout){
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue('--ink').trim();
    var line = style.getPropertyValue('--line').trim();
    var themed = JSON.parse(JSON.stringify(layout));
    themed.paper_bgcolor = themed.plot_bgcolor = 'rgba(0,0,0,0)';
    themed.font = {color: ink, size: 12, family: 'system-ui,"DejaVu Sans",sans-serif'};
    themed.modebar = {bgcolor: 'rgba(0,0,0,0)', color: line, activecolor: ink,
                      remove: ['lasso2d', 'select2d', 'autoScale2d', 'zoomIn2d', 'zoomOut2d']};
    ['xaxis','yaxis'].forEach(function(axis){
      themed[axis] = Object.assign({gridcolor: line, zerolinecolor: line, linecolor: line},
                                   themed[axis]);
    });
    return themed;
  }
  function draw(){
    Object.keys(figures).forEach(function(name){
      Plotly.react('plot-' + name, figures[name].data, themed(figures[name].layout),
                   {responsive: true, displaylogo: false, showSendToCloud: false});
    });
  }
  draw();
  dark.addEventListener('change', draw);
})();
"""

// The draw trialkit-draw-1 once more, from its description alone (docs/methods/allocation.md).
const { createHash, createHmac } = require("node:crypto");
const { plan, seed } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const digest = createHash("sha256").update(plan, "utf8").digest("hex");
function draw(label, m) {
  const span = 1n << 256n, limit = (span / BigInt(m)) * BigInt(m);
  for (let c = 0; ; c++) {
    const hex = createHmac("sha256", Buffer.from(seed, "utf8")).update(`trialkit-draw-1\n${digest}\n${label}\n${c}`, "utf8").digest("hex");
    const u = BigInt("0x" + hex);
    if (u < limit) return Number(u % BigInt(m));
  }
}
const arms = {};
for (const line of plan.trimEnd().split("\n").slice(1)) {
  const ids = line.split("\t");
  if (ids.length === 1) arms[ids[0]] = 1 - draw(ids[0], 2);
  if (ids.length === 2) { const d = draw(ids[0], 2); arms[ids[d]] = 1; arms[ids[1 - d]] = 0; }
  if (ids.length === 3) {
    const k = 1 + draw(`${ids[0]}/k`, 2), order = [...ids];
    for (let i = 2; i >= 1; i--) { const j = draw(`${ids[0]}/${i}`, i + 1); [order[i], order[j]] = [order[j], order[i]]; }
    order.forEach((id, place) => { arms[id] = place < k ? 1 : 0; });
  }
}
console.log(JSON.stringify({ digest, arms }));

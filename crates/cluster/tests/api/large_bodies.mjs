// Sends bodies that are too large by fetch, and says what came. Arguments: the URL, and how often.
const [url, times] = process.argv.slice(2);
for (const megabytes of [1, 5, 20]) {
  for (let time = 0; time < Number(times); time++) {
    const options = { method: "PUT", headers: { "content-type": "application/json" }, body: " ".repeat(megabytes * 1e6) };
    let came;
    try {
      const answer = await fetch(url, options);
      came = `${answer.status} ${(await answer.json()).detail}`;
    } catch (error) {
      came = String(error.cause ?? error);
    }
    console.log(`fetch, ${megabytes} MB: ${came}`);
  }
}

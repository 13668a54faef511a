// What js-libp2p takes for granted and Node 20 does not have; to be imported before it.

Promise.withResolvers ??= function () {
  const made = {}
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}

// What a test gives (JSON on stdin), and what a script answers (JSON on stdout).
import { readFileSync } from 'node:fs'

export const given = JSON.parse(readFileSync(0, 'utf8'))
export const answer = (value) => process.stdout.write(JSON.stringify(value))

// The error of a call that has to fail, as the client hands it out.
export const failed = async (call) => {
  try {
    return { unexpected: await call() }
  } catch (e) {
    return { name: e.name, code: e.code, status: e.statusCode ?? e.status, message: e.message, body: e.response?.body, recipients: e.recipients }
  }
}

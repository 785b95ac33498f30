// npm @sendgrid/mail and @sendgrid/client: send, several people, templates, errors.
import client from '@sendgrid/client'
import mail from '@sendgrid/mail'
import { answer, failed, given } from './given.mjs'

const pointed = (key) => {
  mail.setApiKey(key)
  mail.client.setDefaultRequest('baseUrl', `${given.url}/compat/sendgrid`)
  client.setApiKey(key)
  client.setDefaultRequest('baseUrl', `${given.url}/compat/sendgrid`)
}
pointed(given.key)

const msg = {
  from: { email: `orders@${given.domain}`, name: 'Shop' },
  to: 'delivered@simulator.test',
  subject: 'Grüße 🎉',
  text: 'Hi',
  html: '<p>Hi</p>',
}
const seen = ([response]) => ({ status: response.statusCode, id: response.headers['x-message-id'], ignored: response.headers['x-ignored-fields'] })

const call = async (method, url, extra = {}) => (await client.request({ method, url, ...extra }))[0]

answer({
  bounces: (await call('GET', '/v3/suppression/bounces')).body,
  blocks: (await call('GET', '/v3/suppression/blocks')).body,
  one: (await call('GET', '/v3/suppression/bounces/gone@simulator.test')).body,
  added: (await call('POST', '/v3/asm/suppressions/global', { body: { recipient_emails: ['x@simulator.test'] } })).statusCode,
  removed: (await call('DELETE', '/v3/suppression/bounces/gone@simulator.test')).statusCode,
  sent: seen(
    await mail.send({
      ...msg,
      cc: 'cc@simulator.test',
      bcc: 'bcc@simulator.test',
      replyTo: 'help@simulator.test',
      categories: ['order'],
      customArgs: { order: '17' },
      headers: { 'X-Order': '17' },
      attachments: [
        { filename: 'a.txt', content: Buffer.from('attached').toString('base64'), type: 'text/plain', disposition: 'attachment' },
        { filename: 'logo.png', content: Buffer.from('png').toString('base64'), type: 'image/png', disposition: 'inline', content_id: 'logo' },
      ],
      trackingSettings: { clickTracking: { enable: true } },
    }),
  ),
  each: seen(
    await mail.send({
      ...msg,
      to: undefined,
      text: 'Hi {{name}}',
      html: undefined,
      personalizations: [
        { to: 'a@simulator.test', substitutions: { name: 'Ann' } },
        { to: 'b@simulator.test', substitutions: { name: 'Bob' } },
      ],
    }),
  ),
  templated: seen(
    await mail.send({
      from: msg.from,
      templateId: given.template,
      personalizations: [
        { to: 'a@simulator.test', dynamicTemplateData: { n: 1, name: 'Ann & Co' } },
        { to: 'b@simulator.test', dynamicTemplateData: { n: 2, name: 'Bob' } },
      ],
    }),
  ),
  sandbox: seen(await mail.send({ ...msg, mailSettings: { sandboxMode: { enable: true } } })),
  invalid: await failed(() => mail.send({ ...msg, to: 'nobody' })),
  foreign: await failed(() => mail.send({ ...msg, from: 'a@elsewhere.example' })),
  wrongKey: await failed(() => (pointed('SG.nobody'), mail.send(msg))),
})
